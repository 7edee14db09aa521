"""What the documents leave to their reader, and what they promise: by document and section.

A director is called with the section's story before anything of it was done. What it leaves undone
is done after it, as it stands.
"""

from __future__ import annotations

import csv
import importlib
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from privagg import Federation
from privagg.run import rounds
from tests.documents.reading import ROOT, read
from tests.documents.story import Director, Story
from tests.run.test_own_program import install

README = "README.md"
HEART = "examples/flower_heart/README.md"
DATA = Path(os.environ.get("PRIVAGG_DATA", ROOT.parent / "shared" / "data"))

DIRECTORS: dict[tuple[str, str], Director] = {}
MARKED: dict[tuple[str, str], str] = {}
"""Sections that are not for `make unit`, and where they belong: `deployment` or `nightly`."""


def directs(
    document: str, heading: str, *, mark: str | None = None
) -> Callable[[Director], Director]:
    """Enter a director for a section, and where its test belongs."""

    def enter(director: Director) -> Director:
        DIRECTORS[document, heading] = director
        if mark:
            MARKED[document, heading] = mark
        return director

    return enter


def blocks_of(document: str, heading: str, language: str) -> list[str]:
    """A section's blocks in one language."""
    return [
        block.text
        for block in read(ROOT / document).blocks
        if (block.place.heading, block.language) == (heading, language)
    ]


# --- README ---------------------------------------------------------------------------------------


@directs(README, "Two commands")
def two_commands(story: Story) -> None:
    story.until("make demo")
    out = story.folder / "out"
    for name in ("model.safetensors", "report.json", "report.html", "bundle.privagg.zip"):
        assert (out / name).stat().st_size > 0, name
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)", (out / "report.html").read_text())
    parties = {path.name for path in (out / "parties").iterdir()}
    assert {"coordinator", "key-holder", "riverside", "hillcrest", "lakeview"} <= parties
    assert all((out / "parties" / name / "identity.pem").exists() for name in parties)
    story.said("privagg report out --format pdf")
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "lint types contracts unit deployment" in (ROOT / "Makefile").read_text()
    story.until("make test")
    sbom = story.until("make sbom").out
    assert "--require-hashes" in sbom
    assert "--of JSON -o out/sbom.json" in sbom
    nightly = story.until("make nightly").out
    for part in (
        "-m nightly",
        "-m deployment tests/documents",
        "PRIVAGG_FUZZ",
        "ledger --kills",
        "empirical",
        "sensitivity",
    ):
        assert part in nightly
    two_verdicts(story)


def two_verdicts(story: Story) -> None:
    """The stranger's part: what is counted, what `--require` says, what a checkpoint adds."""
    verified = story.until("privagg verify")
    counts = r"(\d+) values proved; (\d+) claims are attested, (\d+) not decided"
    assert re.search(counts, verified.out.splitlines()[0])
    bundle = "privagg verify out/bundle.privagg.zip"
    claims = story.type(f"{bundle} --json --require proved:metrics", code=3).json["claims"]
    verdicts = {claim["name"]: claim["verdict"] for claim in claims}
    assert verdicts["run/metrics"] == "attested"
    assert verdicts["riverside/history"] == "not decided", "it cannot tell"
    story.until("privagg ledger kept")
    story.until("privagg verify")
    story.type(f"{bundle} --checkpoint riverside.checkpoint --require proved:riverside/history")


@directs(README, "Ask before you train")
def ask_first(story: Story) -> None:
    """The section's questions put into the file of the section above, before anybody trains."""
    whole = blocks_of(README, "Your own federation in five minutes", "toml")[0]
    write_federation(story.folder, whole + story.block("toml"))
    assert "Questions of three-hospitals" in story.until("privagg check").out
    story.until("privagg approve")
    assert spent_of(story, "north") == 0, "an approval spends nothing"
    said = story.until("privagg ask").out
    assert "for these records between" in said
    assert Decimal("0.499") < spent_of(story, "north") <= Decimal("0.5")
    with (story.folder / "answers.csv").open(newline="") as file:
        rows = {(row["question"], row["figure"], row["group"]): row for row in csv.DictReader(file)}
    wards = [row for (name, _, _), row in rows.items() if name == "patients"]
    assert len(wards) == 4 * 3, "each ward and none, each outcome and none"
    mean = rows["age", "mean", "outcome=yes"]
    assert float(mean["records_low"]) < float(mean["value"]) < float(mean["records_high"])
    assert (story.folder / "out" / "answers.json").exists()
    unknown_ranges(story, whole)


@directs(README, "Evaluate on records that nobody may publish")
def held_out_records(story: Story) -> None:
    """The file of the section above with this section's [evaluation], in two rounds."""
    whole = blocks_of(README, "Your own federation in five minutes", "toml")[0]
    without = re.sub(r"(?s)\[evaluation\].*", "", whole).replace("rounds = 20", "rounds = 2")
    room = without.replace("epsilon = 1.0 ", "budget_epsilon = 1.6\nepsilon = 1.0 ", 1)
    write_federation(story.folder, room + story.block("toml"))
    story.until("privagg run")
    spent = spent_of(story, "north")
    said = story.until("privagg evaluate").out
    assert "area under the ROC curve" in said
    assert spent < spent_of(story, "north") < spent + Decimal("0.51")
    with (story.folder / "figures.csv").open(newline="") as file:
        groups = {row["group"] for row in csv.DictReader(file) if row["question"] == "by site"}
    assert groups == {"site=north", "site=south", "site=west"}
    (story.folder / "out").rename(story.folder / "evaluated")
    looks = story.block("toml").replace("every = 5", "every = 1")
    write_federation(story.folder, room + looks)
    assert "the best one by its evaluation" in story.until("privagg run").out


def unknown_ranges(story: Story, whole: str) -> None:
    """The same file without its declared columns, and the section that asks for them instead."""
    (story.folder / "out").rename(story.folder / "asked")
    without, found = re.subn(r"(?s)\[data\]\n.*?(?=\[\[sites\]\])", "", whole)
    assert found == 1
    (story.folder / "my.toml").write_text(without + story.block("toml"))
    story.until("privagg approve")
    said = story.until("privagg ask --for").out
    declared = (story.folder / "my.toml").read_text()
    assert declared.count("[[data.features]]") >= 1
    if "\nrange = [" in declared:  # few records under much noise may show no column's range
        assert "quantile 0.995: about" in declared
    assert 'positive = "== ' in said
    assert Decimal("0.499") < spent_of(story, "north") <= Decimal("0.5")


@directs(README, "Your own federation in five minutes")
def five_minutes(story: Story) -> None:
    story.until("privagg init")
    template = (story.folder / "my.toml").read_text()
    assert template.count("#") > 40, "a commented template"
    whole = story.block("toml")
    write_federation(story.folder, whole)
    plan = story.until("privagg check").out
    for word in ("noise", "ε", "budget", "bytes"):
        assert word in plan.lower(), plan
    files_as_they_are(story, whole)
    story.until("privagg approve")
    assert spent_of(story, "north") == 0, "an approval spends nothing"
    story.until("privagg run")
    story.until("privagg ledger show")
    before = spent_of(story, "north")
    assert Decimal("0.999") < before <= 1, "noise is sized to spend all of epsilon"
    assert story.type("privagg run my.toml", code=2).err.startswith("error: ")
    assert spent_of(story, "north") == before, "a run that is refused spends nothing"
    from_python(story)
    shorter = whole.replace("rounds = 20", "rounds = 4")  # enough to be cut off in the third
    assert shorter != whole
    (story.folder / "my.toml").write_text(shorter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privagg.report.write.can_draw", lambda: False)  # pages take the longest
        cut_off_runs(story)
        trying_settings(story, shorter)
    joining_and_leaving(story, whole)


def spent_of(story: Story, site: str) -> Decimal:
    """ε of the one budget in a site's ledger."""
    shown = story.type(f"privagg ledger show out/parties/{site}/ledger.sqlite --json")
    (budget,) = shown.json["budgets"]
    return Decimal(budget["epsilon_spent"])


def from_python(story: Story) -> None:
    """The same from Python, by somebody who has not run it yet."""
    (story.folder / "out").rename(story.folder / "before")
    write_table(story.folder / "new-patients.csv", 5, seed=9, labelled=False)
    made = story.python()
    page = made["result"].report_html
    assert page.read_bytes() == (story.folder / "out" / "report.html").read_bytes()


def cut_off_runs(story: Story) -> None:
    """Two runs that are cut off in their third round: one goes on, one is ended."""
    run = cut_off(story, "from-python")
    before = spent_of(story, "north")
    assert run in story.type("privagg run my.toml", code=2).err
    assert spent_of(story, "north") == before, "named before anything is charged"
    story.until("privagg run my.toml --resume", instead={"RUN": run})
    assert spent_of(story, "north") <= 1, "nothing is charged twice"
    run = cut_off(story, "resumed")
    story.until("privagg run my.toml --abandon", instead={"RUN": run})
    for name in ("model.safetensors", "report.json"):
        assert (story.folder / "out" / "runs" / run / name).exists()
    assert run in story.until("privagg runs").out
    story.said("privagg report out --run RUN", instead={"RUN": run})
    story.said("privagg approve --withdraw", "my.toml", "--all-sites")
    assert "approve" in story.type("privagg run my.toml", code=2).err


def cut_off(story: Story, name: str) -> str:
    """A run cut off in its third round, in a fresh output folder; the last one moves to `name`."""
    (story.folder / "out").rename(story.folder / name)
    story.type("privagg approve my.toml --all-sites")
    lives = iter((rounds.run_round, rounds.run_round))

    def interrupted(*words: Any, **named: Any) -> Any:
        for run_round in lives:
            return run_round(*words, **named)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "run_round", interrupted)
        told = story.type("privagg run my.toml", code=130).err
    found = re.search(r"--resume (\S+);", told)
    assert found is not None, told
    return found[1]


def files_as_they_are(story: Story, whole: str) -> None:
    """The same tables saved as the section's settings say: `check` finds nothing in them."""
    plain = {path: path.read_text() for path in story.folder.glob("*.csv")}
    for path, text in plain.items():
        header, rows = text.split("\n", 1)
        spelt = rows.replace(",a,", ',"Innere Medizin",').replace(",", ";")
        path.write_text(f"{header.replace('age', 'Alter').replace(',', ';')}\n{spelt}")
    story.type("privagg check my.toml", code=2)  # separated by ';'
    (story.folder / "my.toml").write_text(f"{whole}\n{story.block('toml')}")
    told = story.type("privagg check my.toml").out
    assert "400 of 400 records are usable" in told
    assert "warning" not in told
    for path, text in {**plain, story.folder / "my.toml": whole}.items():
        path.write_text(text)


def trying_settings(story: Story, whole: str) -> None:
    """The tables of the section on settings put into the file; one approval for three runs."""
    (story.folder / "out").rename(story.folder / "abandoned")
    names, values = zip(*re.findall(r"(?m)^(\w+) = (.*)$", story.block("toml")), strict=True)
    settings = dict(zip(names, values, strict=True))
    assert set(settings) == {"epsilon", "budget_epsilon", "metric", "grid"}
    budget = f"epsilon = {settings['epsilon']}\nbudget_epsilon = {settings['budget_epsilon']}\n"
    text, found = re.subn(r"(?m)^epsilon = .*\n", budget, whole)
    assert found == 1
    text += f"\n[tuning]\nmetric = {settings['metric']}\ngrid = {settings['grid']}\n"
    (story.folder / "my.toml").write_text(text)
    story.type("privagg tune my.toml", code=2)  # nobody approved it yet
    story.type("privagg approve my.toml --all-sites")
    story.said("privagg tune my.toml")
    assert 1 < spent_of(story, "north") <= 3, "three candidates, each charged"
    story.type("privagg verify out/bundle.privagg.zip")
    told = story.said("privagg report out --format annexes").out
    named = {span.text for span in read(ROOT / README).spans if span.text.startswith("annex-")}
    assert len(named) >= 6
    assert [name for name in named if name not in told] == []


def joining_and_leaving(story: Story, whole: str) -> None:
    """Its tables in the place of the file's sites: who is there follows from the plan."""
    config = tomllib.loads(whole)
    config["sites"] = tomllib.loads(story.block("toml"))["sites"]
    plan = Federation.from_dict(config, base=story.folder).plan
    assert [len(epoch.names) for epoch in plan.epochs] == [3, 4, 3]
    assert "south" not in plan.in_round(9).names
    continued = tomllib.loads(story.block("toml"))["training"]["continues"]
    config["training"]["continues"] = continued
    section = Federation.from_dict(config, base=story.folder).config.training.continues
    assert section is not None
    assert section.model_dump() == continued


@directs(README, "Large models")
def large_models(story: Story) -> None:
    """The base is made up; the digest of what is frozen is shown, and one bit changes it."""
    whole = blocks_of(README, "Your own federation in five minutes", "toml")[0]
    text = re.sub(r'(?m)^model = "logistic" .*$', story.block("toml").splitlines()[-1], whole)
    assert "my_model:based" in text
    write_federation(story.folder, text)
    (story.folder / "my_model.py").write_text(story.block("python"))
    base = {"0.weight": torch.ones(32, 4), "0.bias": torch.zeros(32)}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(story.folder))
        save_file(base, story.folder / "base.safetensors")
        story.type("privagg approve my.toml --all-sites")
        told = story.said("privagg check my.toml").out
        assert "66 parameters" in told
        assert "frozen base" in told
        save_file({**base, "0.bias": torch.full((32,), 1e-9)}, story.folder / "base.safetensors")
        assert "not approved" in story.type("privagg run my.toml", code=2).err
    sys.modules.pop("my_model", None)


@directs(README, "For Flower users")
def flower_users(story: Story) -> None:
    """README's lines in the app of `examples/flower_heart`, with another strategy, in process."""
    pytest.importorskip("flwr")
    from flwr.clientapp import ClientApp
    from flwr.serverapp.strategy import FedAdam

    from privagg.flower.bridge.inprocess import InProcessGrid
    from privagg.flower.doors import private_grid, private_updates
    from tests.test_flower_heart import Hospitals, require_whole_story

    block = story.block("python")
    client, server = block.split("\n\n")
    with pytest.MonkeyPatch.context() as patch:
        hospitals = Hospitals(story.folder, patch, rounds=5)
        names: dict[str, Any] = {"ClientApp": ClientApp, "private_updates": private_updates}
        exec(client, names)
        names["app"].train()(importlib.import_module("flower_heart.client_app").train)
        settings = {"learning-rate": 0.5, "local-steps": 5}
        grid = InProcessGrid(
            dict.fromkeys(hospitals.nodes, names["app"]),
            node_configs=hospitals.nodes,
            run_config=settings,
        )
        names = {"private_grid": private_grid, "FedAdam": FedAdam, "grid": grid}
        initial = importlib.import_module("flower_heart.task").initial_arrays()
        exec(server, names | {"initial_arrays": initial})
        require_whole_story(hospitals)
    story.shown_in(HEART)


# --- examples -------------------------------------------------------------------------------------


def shortened(story: Story) -> None:
    """Runs of two rounds: `tests/test_examples.py` holds what the configurations promise."""
    for path in (story.folder / story.document).parent.glob("*.toml"):
        path.write_text(re.sub(r"(?m)^rounds = \d+", "rounds = 2", path.read_text()))
    if not DATA.is_dir() and "../shared/data" in (ROOT / story.document).read_text():
        pytest.skip(f"no tables in {DATA}; set PRIVAGG_DATA to the folder that has them")


for _name in (
    "adapters",
    "ask_first",
    "breast_cancer",
    "credit_default",
    "heart_disease",
    "private_evaluation",
    "real_files",
    "regressions",
    "time_to_event",
    "unknown_columns",
):
    directs(f"examples/{_name}/README.md", "", mark="nightly")(shortened)


@directs("examples/digits_images/README.md", "", mark="nightly")
def digits_images(story: Story) -> None:
    shortened(story)
    story.until("privagg run")
    story.left_to("test_people_as_clients", "python examples/digits_images/by_person.py")


@directs("examples/hazards/README.md", "", mark="nightly")
def hazards(story: Story) -> None:
    """The commands do again what the script did, so they begin where it left tables alone."""
    shortened(story)
    story.until("python")
    for kept in ("parties", "runs"):
        shutil.rmtree(story.folder / "examples/hazards/out" / kept)
    story.rest()


def as_installed(name: str, test: str) -> Director:
    """As if an example's package had been installed; a test by that name does so."""

    def director(story: Story) -> None:
        story.left_to(test, "pip install")
        with pytest.MonkeyPatch.context() as patch:
            install(ROOT / "examples" / name, story.folder / "site-packages", patch)
            story.rest()

    return director


for _name, _test in {
    "own_program": "test_it_is_asked_reported_and_verified_and_without_it_nothing_is_decided",
    "votes": "test_it_is_asked_reported_and_verified",
}.items():
    directs(f"examples/{_name}/README.md", "", mark="nightly")(as_installed(_name, _test))


@directs("examples/README.md", "", mark="nightly")
def examples(story: Story) -> None:
    story.rest()


def write_federation(folder: Path, configuration: str) -> None:
    """README's configuration and tables that it declares, with made-up patients."""
    (folder / "my.toml").write_text(configuration)
    for seed, (name, records) in enumerate(
        {"north": 400, "south": 250, "west": 320, "public": 120}.items()
    ):
        write_table(folder / f"{name}.csv", records, seed=seed)


def write_table(path: Path, records: int, *, seed: int, labelled: bool = True) -> None:
    """Patients in the columns of README's configuration; the outcome follows from age and ward."""
    draw = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "ward", *["outcome"] * labelled])
        for age, ward in zip(
            draw.integers(18, 100, records), draw.integers(0, 3, records), strict=True
        ):
            ill = int(draw.random() < 1 / (1 + np.exp(-(age - 60) / 12 - ward + 1)))
            writer.writerow([age, "abc"[ward], *[ill] * labelled])
