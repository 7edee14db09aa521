"""Languages: a file each, whole and with the same places; nothing is left in English by mistake."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from rich.cells import cell_len

import privagg
from privagg.cli.console import wrapped
from privagg.cli.demo import write_demo
from privagg.errors import ConfigError, MissingDependencyError
from privagg.report import Report, language
from privagg.report.annexes import ANNEXES, KINDS, render_annex
from privagg.report.forms import FORMS
from privagg.report.language import languages, say, speaking, told
from privagg.report.places import PLACES
from privagg.report.registry import registry_yaml
from privagg.report.render import render_html, render_pdf
from privagg.report.sentences import summarise
from privagg.report.words import first_words
from privagg.report.write import file_name, write_formats
from tests.audit.conftest import bundle_of
from tests.commands import call
from tests.report.worlds import WORLDS, World

PACKAGE = Path(privagg.__file__).parent
OTHERS = languages()[1:]
PLACE = re.compile(r"\{(\w+)\}")
GetWorld, GetReport = Callable[[str], World], Callable[[str], Report]


def tables(name: str) -> dict[str, dict[str, str]]:
    found = tomllib.loads((language.FOLDER / f"{name}.toml").read_text("utf-8"))
    del found["language"]
    return found


def pairs(name: str) -> list[tuple[str, str]]:
    return [pair for table in tables(name).values() for pair in table.items()]


@cache
def trees() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py")))


@cache
def strings() -> tuple[str, ...]:
    """Every text that stands in the package's code, templates and word files."""
    texts = [
        node.value for tree in trees() for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]  # fmt: skip
    texts += [path.read_text("utf-8") for path in PACKAGE.rglob("*.j2")]
    texts += [path.read_text("utf-8") for path in (PACKAGE / "report" / "annexes").glob("*.toml")]
    return (*texts, *_values(_words()), *_months())


def _words() -> Any:
    return tomllib.loads((PACKAGE / "report" / "words.toml").read_text("utf-8"))


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if not isinstance(value, str):
            yield from _values(inner)


def _months() -> list[str]:
    import calendar

    return list(calendar.month_name)[1:]


@cache
def said() -> frozenset[str]:
    """What is certainly said somewhere: literals of `say`, counted nouns, templates, questions."""
    found = {*PLACES.values(), *_months(), KINDS}
    for form in FORMS.values():
        found |= {form.title, form.source, form.blank, *(each.heading for each in form.sections)}
    for tree in trees():
        if not any(
            isinstance(node, ast.ImportFrom) and node.module == "privagg.report.language"
            for node in ast.walk(tree)
        ):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "say" and isinstance(node.args[0], ast.Constant | ast.IfExp):
                sentence = node.args[0]
                ends = (
                    (sentence.body, sentence.orelse)
                    if isinstance(sentence, ast.IfExp)
                    else (sentence,)
                )
                found |= {end.value for end in ends if isinstance(end, ast.Constant)}
            if node.func.id == "count_text":
                nouns = [n.value for n in node.args[1:] if isinstance(n, ast.Constant)]
                found |= {f"{{n}} {noun}" for noun in [*nouns, f"{nouns[0]}s"][:2]}
    for path in PACKAGE.rglob("*.j2"):
        found |= set(re.findall(r'(?:say\(|else )"([^"]+)"', path.read_text("utf-8")))
    words = _words()
    found |= set(words["sentences"].values()) | set(words["units"].values())
    found |= {each[key] for each in words["glossary"] for key in ("term", "meaning")}
    return frozenset(found)


NOT_TOLD = {"{n} run was", "{n} runs were"}
"""Of the draft for the registry, which is in English whoever asks."""


@pytest.mark.parametrize("name", OTHERS)
def test_every_sentence_of_the_code_is_translated(name: str) -> None:
    assert not said() - dict(pairs(name)).keys() - NOT_TOLD


@pytest.mark.parametrize("name", OTHERS)
def test_no_translation_is_of_something_that_nobody_says(name: str) -> None:
    known = "\n".join(strings())
    counted = said()
    strange = [
        english for english, _ in pairs(name)
        if english not in counted
        and any(part not in known for part in PLACE.split(english)[::2] if len(part) > 12)
    ]  # fmt: skip
    # A sentence that a condition makes up of two f-strings is told in its parts.
    assert not [one for one in strange if not _pieced(one, known)]


def _pieced(english: str, known: str) -> bool:
    words = re.findall(r"[A-Za-z`']{3,}", PLACE.sub(" ", english))
    return all(word in known for word in words)


@pytest.mark.parametrize("name", OTHERS)
def test_a_translation_names_the_same_places(name: str) -> None:
    every = pairs(name)
    assert len(dict(every)) == len(every), "a sentence stands twice"
    for english, to in every:
        assert sorted(set(PLACE.findall(english))) == sorted(set(PLACE.findall(to))), english
        assert "}{" not in english, english
        assert to.count("{") == len(PLACE.findall(to)), to


# --- nothing is left in English --------------------------------------------------------------

ENGLISH_RUN = re.compile(r"[A-Za-z][a-z'’]+(?: [A-Za-z]*[a-z'’]+){2,}")
"""Three words that follow each other."""

GIVEN = (
    r"(?<=来源：)[^）]+）",  # a publication's title
    r"“(?:privagg|No person|Second readings|Article)[^”]+”",  # commands, people's statements
    r"：(?:No person|Second readings|Article)[^\n]*",
    r"Dr\. M\. Weiss, data protection officer",
    r"(?:CKKS in the ring|No encryption: the oracle)[^\n]*",  # the worlds' own explanation
    r"`[^`]*`",
)


def left(text: str) -> list[str]:
    for given in GIVEN:
        text = re.sub(given, "", text)
    return ENGLISH_RUN.findall(text)


def visible(page: str) -> str:
    """What a reader sees or hears of a page, without code."""
    page = re.sub(r"<style.*?</style>|<pre.*?</pre>|<code>.*?</code>", "", page, flags=re.DOTALL)
    heard = "\n".join(re.findall(r'(?:aria-label|title)="([^"]*)"', page))
    return unescape(re.sub(r"<[^>]+>", "\n", page) + "\n" + heard)


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_no_english_sentence_is_left_on_a_chinese_page(report: GetReport, name: str) -> None:
    with speaking("zh"):
        page = render_html(report(name))
        annexes = [render_annex(annex, report(name)) for annex in ANNEXES]
    assert '<html lang="zh-CN">' in page
    assert left(visible(page)) == []
    for annex in annexes:
        assert left(annex) == []
        assert "须由人填写" in annex


def test_verify_is_told_in_chinese(world: GetWorld, tmp_path: Path) -> None:
    made = bundle_of(world("three-hospitals"))
    made.write(tmp_path / "bundle.zip")
    answer = call("verify", tmp_path / "bundle.zip", "--language", "zh")
    assert answer.code == 0
    assert answer.out.startswith("未发现矛盾：")
    assert left(answer.out) == []
    text = world("three-hospitals").report().to_json()
    (tmp_path / "report.json").write_text(text.replace("0.95722", "0.15722"))
    answer = call("verify", tmp_path / "report.json", PRIVAGG_LANGUAGE="zh")
    assert answer.code == 1
    assert answer.out.startswith("与证据矛盾：")
    # What the report itself says in English is quoted where it is contradicted.
    assert left("\n".join(x for x in answer.out.splitlines() if "  summary[" not in x)) == []
    english = call("verify", tmp_path / "report.json", "--json", "--language", "zh")
    assert english.json["claims"][0]["verdict"] in ("proved", "not decided")


PLANS: tuple[dict[str, str], ...] = (
    {},
    {
        '"ckks"': '"bfv"', '"record-distributed"': '"client"', "sampling_rate = 0.2\n": "",
        "delta = 1e-5": "delta = 0.01",
    },
    {
        '"ckks"': '"plaintext"', '"record-distributed"': '"record-local"',
        "budget_epsilon = 3 ": "budget_epsilon = 1 ",
        "sampling_rate": "local_steps = 2\nlocal_learning_rate = 0.5\nsampling_rate",
    },
)  # fmt: skip


@pytest.mark.parametrize("changes", PLANS)
def test_check_is_told_in_chinese(tmp_path: Path, changes: dict[str, str]) -> None:
    path = write_demo(tmp_path)
    text = path.read_text().replace("rounds = 40", "rounds = 3")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    if '"record-local"' in text or '"client"' in text:
        text += "\n[compression]\nkeep = 0.5\nbits = 12\n"
    path.write_text(text)
    answer = call("check", path, "--language", "zh")
    assert answer.code == 0, answer.err
    assert "噪声乘数" in answer.out
    assert (
        left(re.sub(r"\b(mean|worst) [a-z ]+|[a-z ]+ error|held-out patients", "", answer.out))
        == []
    )
    facts = call("check", path, "--language", "zh", "--json").json
    assert facts["custody_plainly"].startswith("A key holder")


# --- the mechanism ------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A third language: every English sentence in capitals, its places as they are."""
    for name in OTHERS:
        (tmp_path / f"{name}.toml").write_bytes((language.FOLDER / f"{name}.toml").read_bytes())
    source = (language.FOLDER / "zh.toml").read_text("utf-8")

    def shouted(line: str) -> str:
        found = re.fullmatch(r'("(?:[^"\\]|\\.)*") = "(?:[^"\\]|\\.)*"', line)
        if not found:
            return line
        loud = re.sub(
            r"\{\w+\}|[^{]+", lambda m: m[0] if m[0][0] == "{" else m[0].upper(), found[1]
        )
        return f"{found[1]} = {loud}"

    text = "\n".join(map(shouted, source.splitlines())).replace(
        'tag = "zh-CN"', 'tag = "en-x-loud"'
    )
    (tmp_path / "loud.toml").write_text(
        re.sub(r"(?m)^(serif|sans) = .*", r"\1 = []", text), "utf-8"
    )
    monkeypatch.setattr(language, "FOLDER", tmp_path)
    return "loud"


def test_a_third_language_is_a_further_file(toy: str, report: GetReport, tmp_path: Path) -> None:
    assert languages() == ("en", "loud", "zh")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "report.json").write_text(report("smooth").to_json())
    answer = call(
        "report", tmp_path / "in" / "report.json", "--language", toy, "-f", "html", "-f", "pdf"
    )
    assert answer.code == 0, answer.err
    page = (tmp_path / "in" / "report.loud.html").read_text()
    assert '<html lang="en-x-loud">' in page
    assert "3 INSTITUTIONS (st-anna, charite AND leuven) TRAINED ONE logistic MODEL" in visible(
        page
    )
    assert (tmp_path / "in" / "report.loud.pdf").read_bytes().startswith(b"%PDF")


def test_the_json_and_the_registry_are_english_in_every_language(world: GetWorld) -> None:
    english = world("smooth").report()
    with speaking("zh"):
        assert world("smooth").report().to_json() == english.to_json()
        assert "联邦" in summarise(english)[0]
        assert not re.search("[\u4e00-\u9fff]", registry_yaml(english))
        assert file_name("json") == "report.json"
        assert file_name("annex-gdpr-35") == "annex-gdpr-35.zh.md"
        assert "为保护对象" in first_words(english).applies
    assert file_name("html") == "report.html"


def test_an_unknown_language_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no language 'xx'; there are: en, zh"), speaking("xx"):
        pass
    answer = call("check", write_demo(tmp_path), "--no-data", "--language", "../en")
    assert answer.code == 2
    assert "there are: en, zh" in answer.err


def test_what_others_wrote_is_a_place_and_never_a_sentence() -> None:
    with speaking("zh"):
        assert (
            say("Plan of {federation}", federation="{0.__class__} none")
            == "{0.__class__} none 的训练计划"
        )
        assert told("4 charges, up to ε = 0.5") == "4 次扣减，至 ε = 0.5"
        assert told("many charges, up to ε = 0.5") == "many charges, up to ε = 0.5"
        assert told("st-anna, charite and leuven") == "st-anna, charite and leuven"
        assert told("Dr. {n}, until 2026-01-01: none; one person acted for a, b") == (
            "Dr. {n}，有效期至 2026-01-01：none；由同一人代表 a, b"
        )
        assert told("ciphertexts and every opened sum\nnone") == "密文以及每一轮解密总和\n无"
    assert told("none") == "none"


def test_a_long_text_of_an_adversary_costs_little() -> None:
    with speaking("zh"):
        told("none")
        begun = process_time()
        hostile = "key " + " of , until : ε up to {n} signed by " * 200 + "; the charge stands"
        for _ in range(20):
            told(hostile)
        told("x" * 10_000_000)
        assert process_time() - begun < 2


def test_a_hostile_name_is_escaped_in_every_language(report: GetReport) -> None:
    with speaking("zh"):
        page = render_html(report("seven-sites"))
    assert "Krebsregister Süd &lt;b&gt;&amp;&lt;/b&gt; $x_1$" in page
    assert "Süd <b>" not in page


def test_a_pdf_without_a_font_of_its_script_is_refused(
    report: GetReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fonts:
        def __init__(self, **_: object) -> None: ...

        def families(self) -> list[str]:
            return ["DejaVu Sans"]

    monkeypatch.setattr("typst.Fonts", Fonts)
    with (
        speaking("zh"),
        pytest.raises(MissingDependencyError, match=r"fonts-noto-cjk.*--format html"),
    ):
        write_formats(tmp_path, report("smooth"), ["html", "pdf"])
    assert not list(tmp_path.iterdir()), "nothing is written where one form fails"


def test_a_chinese_pdf_names_the_fonts_of_the_machine(report: GetReport) -> None:
    import typst

    sans = language.language("zh").sans
    if not set(sans) & set(typst.Fonts().families()):
        pytest.skip("no Chinese font is installed")
    with speaking("zh"):
        pdf = render_pdf(report("smooth"))
    assert b"CJK" in pdf or b"Han" in pdf or b"Noto" in pdf


def test_wide_characters_take_two_columns() -> None:
    text = (
        "每家机构的账本先行扣减（ε, δ），此后才训练；用 privagg verify bundle.zip。“已证明”是区间。"
        * 3
    )
    for width in (30, 41, 80):
        lines = wrapped(text, width)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(cell_len(line) <= width for line in lines)
        assert not any(line[0] in "，。；：）”" or line[-1] in "（“" for line in lines)
    assert wrapped("one two three", 8) == ["one two", "three"]
