"""The command line: teaches, refuses with one line and exit code 2, and reads well when piped."""

from __future__ import annotations

import itertools
import json
import math
import re
import signal
import subprocess
import sys
import threading
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console
from scipy.special import hyp2f1

from privagg.cli.demo import write_demo
from privagg.cli.live import RoundLines
from privagg.config.data import TableData
from privagg.config.schema import load_config, parse_config
from privagg.federation import Federation
from privagg.privacy.ledger import Ledger
from privagg.report import Report
from privagg.run.results import RoundReport
from privagg.training.datasets import BREAST_CANCER_SCHEMA, BREAST_CANCER_SITES
from tests.approvals import approved
from tests.commands import call


def _quick(folder: Path, **replaced: str) -> Path:
    """The demo's configuration, made quick: two rounds under the oracle scheme."""
    path = write_demo(folder, scheme="plaintext")
    text = path.read_text()
    for old, new in {"rounds = 40": "rounds = 2", **replaced}.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def _approved(path: Path) -> Path:
    """The same file, its job approved by one person for all sites."""
    approved(Federation.from_toml(path))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a two-round run, made by the command line in a process of its own."""
    folder = tmp_path_factory.mktemp("trained")
    path = _quick(folder)
    assert call("approve", path, "--all-sites", "--yes").code == 0
    words = [sys.executable, "-m", "privagg", "run", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


# --- numbers -------------------------------------------------------------------------------------


def test_epsilon_prints_a_proven_interval_and_peers() -> None:
    answer = call("epsilon", "-q", "0.2", "-s", "10", "-n", "10000", "-d", "1e-9", "--json")
    facts = answer.json
    assert answer.code == 0
    lower, upper = Decimal(facts["epsilon_lower"]), Decimal(facts["epsilon"])
    assert lower < upper <= lower * Decimal("1.000001")
    assert Decimal("13.59") < upper < Decimal("13.60")
    assert facts["certified"]
    assert {peer["name"] for peer in facts["peers"]} == {"rdp", "pld"}


def test_epsilon_of_mixed_rounds_takes_groups_in_order() -> None:
    words = ("epsilon", "-d", "1e-6", "--json", "--no-peers")
    both = call(*words, "-q", "0.1", "-s", "2", "-n", "10", "-q", "1", "-s", "30", "-n", "3")
    terms = both.json["event"]["terms"]
    assert {(t["mechanism"]["sampling_rate"], t["count"]) for t in terms} == {("0.1", 10), ("1", 3)}
    first = call(*words, "-q", "0.1", "-s", "2", "-n", "10").json
    assert Decimal(first["epsilon"]) < Decimal(both.json["epsilon"])


def test_replace_one_costs_as_much_as_half_the_noise() -> None:
    words = ("epsilon", "-n", "1", "-d", "1e-5", "--json", "--no-peers")
    replace = call(*words, "-s", "8", "--adjacency", "replace-one").json
    half = call(*words, "-s", "4").json
    assert replace["epsilon"] == half["epsilon"]
    assert replace["adjacency"] == "replace-one"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-q", "0.2", "-s", "1", "-n", "3", "-d", "2"), "--delta must lie strictly between"),
        (("-q", "1.5", "-s", "1", "-n", "3", "-d", "1e-5"), "--sampling-rate must be above 0"),
        (("-q", "0.1", "-s", "0", "-n", "3", "-d", "1e-5"), "--noise-multiplier must be above 0"),
        (("-q", "0.1", "-s", "1", "-n", "0", "-d", "1e-5"), "--rounds must lie between"),
        (("-q", "0.1", "-q", "1", "-s", "1", "-n", "1", "-n", "2", "-n", "3", "-d", "1e-5"),
         "given 2 times for 3 groups"),
        (("-q", "0.1", "-s", "1", "-n", "1", "-d", "1e-5", "--adjacency", "replace-one"),
         "full participation only"),
        (("-s", "1", "-n", "1", "-d", "1e-5", "--adjacency", "other"), "unknown adjacency"),
    ],
)  # fmt: skip
def test_epsilon_refuses_what_it_cannot_prove(words: tuple[str, ...], message: str) -> None:
    answer = call("epsilon", *words)
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert answer.out == ""


def test_epsilon_of_a_tree_is_that_of_its_nodes() -> None:
    words = ("epsilon", "-s", "9", "-d", "1e-6", "--json", "--no-peers")
    tree = call(*words, "--mechanism", "tree-aggregation", "--steps", "1000", "-n", "3").json
    nodes = call(*words, "-n", "30").json
    assert tree["epsilon"] == nodes["epsilon"]
    assert "zero in its place" in tree["adjacency"]


def test_epsilon_of_discrete_shares_has_no_lower_end() -> None:
    words = ("epsilon", "--mechanism", "discrete-gaussian", "-n", "5", "-d", "1e-6", "--json")
    fine = call(*words, "--sensitivity-grid", "64", "--shares", "9", "-s", "2").json
    smooth = call("epsilon", "-n", "5", "-d", "1e-6", "--json", "-s", "6").json
    assert Decimal(smooth["epsilon"]) < Decimal(fine["epsilon"])
    assert Decimal(fine["epsilon"]) < Decimal(smooth["epsilon"]) * Decimal("1.001")
    assert fine["epsilon_lower"] is None
    coarse = call(*words, "--sensitivity-grid", "1", "-s", "1").json
    assert coarse["event"] is None
    assert "renyi" in coarse["method"]


def test_epsilon_of_laplace_noise_says_what_one_share_alone_is_worth() -> None:
    """All shares cost the moves over the scale; one of three has the closed form at delta 0."""
    words = ("epsilon", "--mechanism", "integer-laplace", "-d", "1e-12", "--json", "--no-peers")
    found = call(*words, "-s", "1", "-n", "1", "--shares", "3").json
    assert 0 <= float(found["epsilon"]) - 1 < 1e-6
    alone = {each["unknown_shares"]: float(each["epsilon"]) for each in found["observers"]}
    decay = math.exp(-1)
    odds = hyp2f1(1 / 3, 1 / 3, 1, decay**2) / (decay / 3 * hyp2f1(1 / 3, 4 / 3, 2, decay**2))
    assert alone[1] == pytest.approx(math.log(odds), abs=1e-6)
    assert 1 < alone[2] < alone[1]
    two = call(*words, "-s", "1", "-n", "1", "--move", "2", "--move", "1").json
    assert float(two["epsilon"]) <= 1 + 1e-6  # 3 in all over a scale of 3
    assert "observers" not in two
    twice = call(*words, "-s", "1", "-n", "2").json
    assert 1.9 < float(twice["epsilon"]) <= 2 + 1e-6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mechanism", "laplace"), "no proof is known"),
        (("--mechanism", "integer-laplace", "--move", "0"), "moves.0: "),
        (("--mechanism", "integer-laplace", "-q", "0.5"), "under sampling"),
        (("--mechanism", "integer-laplace", "--move", "99999"), "moves.0: "),
        (
            (
                "--mechanism",
                "integer-laplace",
                "--move",
                "4000",
                "--move",
                "4000",
                "--move",
                "4000",
            ),
            "noise of scale",
        ),
        (
            ("--mechanism", "integer-laplace", "--adjacency", "replace-one"),
            "add-or-remove-one only",
        ),
        (("--mechanism", "gaussian", "--move", "2"), "--move belongs to"),
        (("--mechanism", "tree-aggregation"), "needs --steps"),
        (("--mechanism", "tree-aggregation", "--steps", "0"), "steps: "),
        (("--mechanism", "tree-aggregation", "--steps", "9", "-q", "0.5"), "under sampling"),
        (("--mechanism", "discrete-gaussian"), "needs --sensitivity-grid"),
        (
            ("--mechanism", "discrete-gaussian", "--sensitivity-grid", "1", "--shares", "3"),
            "coarse",
        ),
        (("--mechanism", "discrete-gaussian", "--sensitivity-grid", "9", "-n", "3"), "one group"),
    ],
)
def test_a_release_without_a_proof_is_refused(words: tuple[str, ...], message: str) -> None:
    answer = call("epsilon", "-s", "0.1", "-n", "4", "-d", "1e-6", *words)
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert message in answer.err


def test_a_word_that_is_no_number_is_refused() -> None:
    answer = call("epsilon", "-q", "abc", "-s", "1", "-n", "1", "-d", "1e-5")
    assert answer.code == 2
    assert "is not a number" in answer.err


def test_calibrate_lands_at_or_below_the_target_and_not_a_step_lower() -> None:
    words = ("-d", "1e-5", "-q", "0.2", "-n", "40")
    found = call("calibrate", "-e", "1", *words, "--json").json
    assert Decimal(found["epsilon"]) <= 1
    smaller = Decimal(found["noise_multiplier"]) - Decimal("0.000001")
    above = call("epsilon", "-s", smaller, *words, "--json", "--no-peers").json
    assert Decimal(above["epsilon"]) > 1


def test_calibrate_doubles_the_noise_where_one_record_is_replaced() -> None:
    words = ("calibrate", "-e", "2", "-d", "1e-5", "-n", "3", "--json")
    once = Decimal(call(*words).json["noise_multiplier"])
    replaced = call(*words, "--adjacency", "replace-one").json
    assert abs(Decimal(replaced["noise_multiplier"]) - 2 * once) <= Decimal("0.000002")
    assert Decimal(replaced["epsilon"]) <= 2
    refused = call(*words, "-q", "0.5", "--adjacency", "replace-one")
    assert refused.code == 2
    assert "no dominating pair is proved" in refused.err


def test_calibrate_stops_where_less_noise_helps_nobody() -> None:
    answer = call("calibrate", "-e", "1e5", "-d", "1e-5", "-n", "1")
    assert "0.03125" in answer.out
    assert "goes no lower" in answer.out


def test_numbers_need_neither_torch_nor_the_encryption_libraries() -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'opacus', 'tenseal', 'phe', 'pandas',\n"
        "                                      'matplotlib', 'jinja2'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "sys.argv = ['privagg', 'epsilon', '-s', '5', '-n', '3', '-d', '1e-5', '--json']\n"
        "from privagg.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["certified"]


# --- configurations ------------------------------------------------------------------------------


def test_the_template_is_a_valid_configuration(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    assert call("init", path).code == 0
    config = load_config(path)
    assert [site.name for site in config.sites] == ["riverside", "hillcrest", "lakeview"]
    again = call("init", path)
    assert again.code == 2
    assert "exists already" in again.err
    assert call("init", path, "--force").code == 0


def test_the_template_mentions_every_key_there_is(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    call("init", path)
    text, config = path.read_text(), load_config(path)
    for section in (config.federation, config.privacy, config.training, config.secure):
        for key in type(section).model_fields:
            rare = {"sensitivity_grid", "update_bound", "physical_batch", "opener",
                    "security_bits", "options", "optimizer"}  # fmt: skip
            assert key in rare or re.search(rf"(?m)^(# )?{key} =", text), key


def test_a_first_run_says_that_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(names: tuple[str, ...]) -> None:
        threading.Event().wait(0.5)
        raise KeyboardInterrupt  # ends the run here

    path = _approved(_quick(tmp_path))
    monkeypatch.setattr("privagg.kernels.loading.load_kernels", loaded)
    for quiet_seconds in (0.0, 60.0):
        monkeypatch.setattr("privagg.cli.training._QUIET_SECONDS", quiet_seconds)
        answer = call("run", path)
        assert answer.code == 130
        assert ("compiles them" in answer.err) == (quiet_seconds == 0)


def test_the_template_explains_every_key_of_compression_and_its_example_is_valid(
    tmp_path: Path,
) -> None:
    path = tmp_path / "my.toml"
    call("init", path)
    lines = path.read_text().splitlines()
    start = lines.index("# [compression]")
    section = itertools.takewhile(lambda line: line.startswith(("#", " ")), lines[start:])
    uncommented = [line.removeprefix("# ") for line in section if re.match(r"# (\[|\w+ = )", line)]
    values = tomllib.loads(path.read_text()) | tomllib.loads("\n".join(uncommented))
    values["training"]["rounds"] = 40  # with a part of the coordinates nothing is proposed
    found = parse_config(values)
    assert found.compression is not None
    assert found.compression.model_fields_set == set(type(found.compression).model_fields)


def test_check_shows_upload_sizes_with_and_without_compression(tmp_path: Path) -> None:
    path = _quick(tmp_path)
    without = json.loads(call("check", path, "--no-data", "--json").out)
    assert without["compression"] is None
    path.write_text(path.read_text() + "\n[compression]\nkeep = 0.25\n")
    found = json.loads(call("check", path, "--no-data", "--json").out)
    assert found["compression"]["upload_dimension"] == found["compression"]["kept"] == 8
    assert found["compression"]["upload_bytes_without"] == without["scheme"]["upload_bytes"]
    assert found["compression"]["upload_bytes"] == found["scheme"]["upload_bytes"]
    assert "8 of the 31 coordinates" in found["compression"]["plainly"]
    shown = call("check", path, "--no-data").out
    assert "without compression" in shown


def test_the_demo_declares_the_table_as_the_library_does(tmp_path: Path) -> None:
    config = load_config(write_demo(tmp_path))
    assert isinstance(config.data, TableData)
    assert config.data.table_schema == BREAST_CANCER_SCHEMA
    assert {site.name: site.records for site in config.sites} == BREAST_CANCER_SITES


def test_check_prints_the_plan_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = _quick(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    answer = call("check", path)
    assert answer.code == 0
    for words in ("noise multiplier", "ε charged after each planned round", "k = 2", "an upload",
                  "room", "custody", "Data of riverside (for its owner only)"):  # fmt: skip
        assert words in answer.out
    assert "rounds 2 " in " ".join(answer.out.split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("noise", ["10", "100", "12.50"])
def test_check_prints_the_noise_multiplier_whole(tmp_path: Path, noise: str) -> None:
    path = _quick(tmp_path, **{"epsilon = 1 ": f"noise_multiplier = {noise}\nepsilon = 1 "})
    shown = " ".join(call("check", path, "--no-data").out.split())
    assert f"noise multiplier {Decimal(noise).normalize():f} (each site" in shown


def test_no_digit_of_a_noise_multiplier_is_rounded_up() -> None:
    """Arithmetic of 28 digits would take 1 for this, and prove the epsilon of more noise."""
    below_one = "0." + 50 * "9"
    for relation, stated in (("add-or-remove-one", below_one), ("replace-one", "0.4" + 49 * "9")):
        answer = call("epsilon", "-s", below_one, "-n", "1", "-d", "1e-5", "--no-peers", "--json",
                      "--adjacency", relation)  # fmt: skip
        (term,) = answer.json["event"]["terms"]
        assert Decimal(term["mechanism"]["noise_multiplier"]) <= Decimal(below_one)
        assert term["mechanism"]["noise_multiplier"].startswith(stated)


def test_check_json_says_what_the_plan_costs(tmp_path: Path) -> None:
    facts = call("check", _quick(tmp_path), "--no-data", "--json").json
    epsilons = [Decimal(row["epsilon"]) for row in facts["epsilon_by_round"]]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] <= 1
    assert facts["scheme"]["upload_bytes"] > 0
    assert facts["room"]["sum_bits"] < facts["room"]["largest_sum_bits"]
    assert facts["findings"] == {}


def test_check_at_one_site_reads_that_sites_file_only(tmp_path: Path) -> None:
    path = _quick(tmp_path)
    (tmp_path / "data" / "lakeview.csv").unlink()
    assert call("check", path, "--site", "riverside").code == 0
    missing = call("check", path)
    assert missing.code == 2
    assert "lakeview.csv" in missing.err
    unknown = call("check", path, "--site", "elsewhere")
    assert unknown.code == 2
    assert "riverside, hillcrest, lakeview" in unknown.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds = 2", "rounds = 2\nroundz = 3", "roundz"),
        ("epsilon = 1 ", "epsilon = -1 ", "privacy.epsilon"),
        ("rounds = 2", 'rounds = "many"', "training.rounds"),
        ('custody = "authority"', 'custody = "nobody"', "custody"),
        ('scheme = "plaintext"', 'scheme = "rot13"', "rot13"),
        ('name = "worst area"', 'name = "worst aria"', "worst aria"),
        ("colluders = 1", "colluders = 3", "honest noise share"),
        ('model = "logistic"', 'model = "tests.nowhere:factory"', "tests.nowhere"),
        ("budget_epsilon = 3 ", "budget_epsilon = 0.2 ", "privacy.epsilon to what is left, 0.2"),
        ("[privacy]", "[privacy", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_bad_configuration_is_one_line_and_spends_nothing(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = _quick(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    for words in (("check", path), ("approve", path, "--all-sites", "--yes")):
        answer = call(*words)
        assert answer.code == 2, answer.err
        assert message in answer.err
        assert answer.err.count("error: ") == 1
        assert "Traceback" not in answer.err
    for ledger in tmp_path.rglob("*.sqlite"):
        entries = Ledger.open(ledger).entries()
        assert not any(entry.kind == "charge" for entry in entries)


def test_a_typo_is_told_before_what_trains_is_loaded(tmp_path: Path) -> None:
    path = _quick(tmp_path, **{"rounds = 40": "roundz = 40"})
    code = (
        "import sys\n"
        f"sys.argv = ['privagg', 'check', {str(path)!r}]\n"
        "from privagg.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'opacus', 'pandas', 'scipy', 'sklearn', 'numba', 'sqlalchemy'}\n"
        "    print(sorted(heavy & {*sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown key 'training.roundz'; did you mean 'rounds'?" in done.stderr
    assert done.stdout == "[]\n"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    answer = call("run", tmp_path / "nope.toml")
    assert answer.code == 2
    assert "nope.toml" in answer.err
    assert "privagg init" in answer.err


def test_debug_shows_the_traceback_of_a_refusal(tmp_path: Path) -> None:
    answer = call("--debug", "run", tmp_path / "nope.toml")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert "Traceback" not in call("run", tmp_path / "nope.toml").err


def test_a_fault_of_ours_exits_with_1_and_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("privagg.cli.numbers._figures", broken)
    answer = call("epsilon", "-s", "5", "-n", "3", "-d", "1e-5")
    assert answer.code == 1
    assert "RuntimeError: boom" in answer.err
    assert "Please report it" in answer.err


def test_an_interruption_says_what_stays_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = _approved(_quick(tmp_path, **{"rounds = 40": "rounds = 3"}))
    with monkeypatch.context() as patch:
        patch.setattr("privagg.run.rounds.run_round", interrupted)
        answer = call("run", path)
    assert answer.code == 130
    assert "stays charged" in answer.err
    found = re.search(r"--resume (\S+);", answer.err)
    assert found is not None
    refused = call("run", path)
    assert (refused.code, found[0] in refused.err) == (2, True)
    assert call("run", path, "--resume", "another").code == 2
    resumed = call("run", path, "--resume", found[1], "--json")
    assert resumed.code == 0
    assert json.loads(resumed.out.splitlines()[-1])["run"] == found[1]
    assert call("run", path, "--abandon", found[1]).code == 2


@pytest.mark.parametrize(
    ("width", "sites", "told", "spared"),
    [
        (120, ("riverside", "hillcrest", "lakeview"), ("ε lakeview", "open"), ()),
        (80, ("north", "south"), ("ε north", "ε south"), ("sent", "open")),
        (80, ("riverside", "hillcrest", "lakeview"), ("ε of budget",), ("ε lakeview", "open")),
    ],
)
def test_a_round_fits_the_terminal(
    width: int, sites: tuple[str, ...], told: tuple[str, ...], spared: tuple[str, ...]
) -> None:
    out = Console(width=width, force_terminal=True, color_system=None)
    with out.capture() as captured:
        RoundLines(out, 40, sites, shown=("accuracy", "base_rate", "auc")).header()
    (line,) = captured.get().splitlines()
    assert len(line) <= width
    assert all(word in line for word in told)
    assert not any(word in line for word in spared)
    piped = Console(width=width)
    with piped.capture() as captured:
        RoundLines(piped, 40, sites, shown=("accuracy", "base_rate", "auc")).header()
    assert "open" in captured.get()


def test_a_run_interrupted_between_rounds_keeps_what_was_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = RoundLines.__call__

    def then_ctrl_c(lines: RoundLines, report: RoundReport) -> None:
        told(lines, report)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RoundLines, "__call__", then_ctrl_c)
    answer = call("run", _approved(_quick(tmp_path, **{"rounds = 40": "rounds = 3"})))
    assert answer.code == 2
    assert "stopping after this round" in answer.err
    assert "interrupted by whoever ran it" in answer.out
    assert (tmp_path / "model.safetensors").is_file()
    report = Report.from_json((tmp_path / "report.json").read_bytes())
    assert (report.outcome, len(report.rounds)) == ("stopped", 1)
    assert call("verify", tmp_path / "bundle.privagg.zip").code == 0


def test_check_shows_the_plan_whose_budget_is_too_small(tmp_path: Path) -> None:
    path = _quick(tmp_path, **{"budget_epsilon = 3 ": "budget_epsilon = 0.2 "})
    answer = call("check", path, "--no-data")
    assert answer.code == 2
    assert "lakeview: spent 0 before, 1.000 after the job, budget 0.2: TOO SMALL" in answer.out
    assert call("run", path).out == ""  # refused before a line about rounds


def test_check_warns_of_a_delta_that_allows_a_whole_record(tmp_path: Path) -> None:
    path = _quick(tmp_path, **{"delta = 1e-5": "delta = 0.01"})
    said = call("check", path, "--no-data")
    assert said.code == 0
    assert "δ = 0.01 is not below 1 / 450" in said.out


# --- runs and what they leave --------------------------------------------------------------------


def test_a_piped_run_has_a_line_a_round_and_no_control_codes(trained: Path) -> None:
    text = (trained / "stdout.txt").read_text()
    assert "\x1b" not in text
    assert "\r" not in text
    assert len(re.findall(r"(?m)^ +[12]/2 +3/3 +\d+\.\d% +\d+\.\d% +[01]\.\d{3} ", text)) == 2
    assert re.search(r"(?m)^on the public table: accuracy .*base rate 0\.\d+", text)
    assert re.search(r"(?m)^recall: class 0 [\d.]+ \(\d+ records\), class 1 ", text)
    for name in ("riverside", "hillcrest", "lakeview", "encrypt", "report.html", "ledgers"):
        assert name in text
    assert not any(line.endswith(" ") for line in text.splitlines() if "/2" in line)


def test_a_run_leaves_model_ledgers_and_reports(trained: Path) -> None:
    assert (trained / "model.safetensors").stat().st_size > 0
    made = Report.from_json((trained / "report.json").read_bytes())
    assert made.outcome == "finished"
    assert len(made.rounds) == 2
    assert "</html>" in (trained / "report.html").read_text()
    assert len(list((trained / "parties").glob("*/ledger.sqlite"))) == 4


@pytest.mark.parametrize(
    "keeper", ["coordinator/checkpoints.sqlite", "key-holder/openings-checkpoints.sqlite",
               "lakeview/ledger.sqlite"],
)  # fmt: skip
def test_everybody_keeps_checkpoints_that_an_auditor_can_use(
    trained: Path, tmp_path: Path, keeper: str
) -> None:
    note = tmp_path / "riverside.checkpoint"
    note.write_text(call("ledger", "kept", trained / "parties" / keeper, "--site", "riverside").out)
    answer = call("verify", trained / "bundle.privagg.zip", "--checkpoint", note, "--json")
    assert answer.code == 0
    claims = [c for c in answer.json["claims"] if c["section"] == "riverside"]
    (held,) = [c for c in claims if c["name"] == "riverside/history"]
    assert held["verdict"] == "proved"
    assert held["claimed"].startswith("holds the kept checkpoint: ")


def test_verify_says_that_one_person_approved_for_all(trained: Path) -> None:
    claims = call("verify", trained / "bundle.privagg.zip", "--json").json["claims"]
    told = [c for c in claims if c["subject"] == "its owner approved this use"]
    assert [c["section"] for c in told] == ["riverside", "hillcrest", "lakeview"]
    for claim in told:
        assert claim["verdict"] == "attested"
        assert claim["by"] == claim["section"]
        assert "one person acted for" in claim["claimed"]
        assert "serving process" not in claim["claimed"]
    told_plainly = " ".join(call("verify", trained / "bundle.privagg.zip").out.split())
    assert "one person acted for riverside, hillcrest, lakeview" in told_plainly


def test_run_json_is_a_document_a_line(tmp_path: Path) -> None:
    answer = call("run", _approved(_quick(tmp_path)), "--json")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line.get("round") for line in lines] == [1, 2, None]
    assert Decimal(lines[1]["epsilon"]["riverside"]["spent"]) <= 1
    assert lines[-1]["outcome"] == "finished"
    assert Path(lines[-1]["report_json"]).is_file()


def test_tune_charges_every_candidate_and_names_the_selected_one(tmp_path: Path) -> None:
    path = _quick(tmp_path)
    text = path.read_text().replace("rounds = 2", "rounds = 1")
    path.write_text(
        text
        + '\n[tuning]\nmetric = "auc"\ngrid = {"training.optimizer.learning_rate" = [0.5, 2]}\n'
    )
    assert call("approve", path, "--all-sites", "--yes").code == 0
    answer = call("tune", path, "--json")
    assert answer.code == 0, answer.err
    *candidates, last = [json.loads(line) for line in answer.out.splitlines()]
    assert [c["settings"] for c in candidates] == [
        {"training.optimizer.learning_rate": "0.5"}, {"training.optimizer.learning_rate": "2"},
    ]  # fmt: skip
    assert last["selected"] == max(candidates, key=lambda c: float(c["metrics"]["auc"]))
    ledger = Ledger.open(tmp_path / "parties" / "riverside" / "ledger.sqlite")
    assert ledger.spent(ledger.keys()[0]).charges == 2
    assert "2 candidates, each charged in full, bring " in answer.err
    assert "earlier search" not in answer.err
    selected = tmp_path / "runs" / last["search"]
    kept = {file.name: file.read_bytes() for file in selected.iterdir()}
    again = call("tune", path)
    assert again.code == 0, again.err
    assert "an earlier search selected training.optimizer.learning_rate = " in again.err
    assert f"it stays in {selected}" in again.err
    assert {file.name: file.read_bytes() for file in selected.iterdir()} == kept
    assert "also when another run takes its place" in again.out
    told = call("runs", path).out
    assert told.count("selected of 2") == 2
    refused = call("tune", _quick(tmp_path / "other"))
    assert refused.code == 2
    assert "[tuning] section" in refused.err


def test_a_demo_replaces_no_configuration_that_was_changed(tmp_path: Path) -> None:
    write_demo(tmp_path, scheme="bfv")
    masked = load_config(write_demo(tmp_path, scheme="masked")).secure
    assert (masked.scheme, masked.custody) == ("masked", "every-site")
    path = write_demo(tmp_path, scheme="plaintext")
    assert 'scheme = "plaintext"' in path.read_text()
    changed = path.read_text().replace("rounds = 40", "rounds = 3")
    path.write_text(changed)
    answer = call("demo", "--output", tmp_path)
    assert answer.code == 2
    assert "was changed since the demo wrote it, and is not replaced" in answer.err
    assert path.read_text() == changed


def test_ledger_show_agrees_with_the_ledger(trained: Path) -> None:
    path = trained / "parties" / "riverside" / "ledger.sqlite"
    facts = call("ledger", "show", path, "--json").json
    ledger = Ledger.open(path)
    budget = facts["budgets"][0]
    assert Decimal(budget["epsilon_spent"]) == ledger.spent(ledger.keys()[0]).epsilon.upper
    assert [point["round"] for point in budget["history"]] == [1, 2]
    assert facts["root"] == ledger.root().hex()
    answer = call("ledger", "show", path, "--last", "1")
    assert answer.code == 0
    assert "the last 1 of 2 charges" in answer.out
    missing = call("ledger", "show", trained / "nothing.sqlite")
    assert missing.code == 2
    assert "there is no ledger" in missing.err


def test_ledger_verify_needs_a_kept_checkpoint_to_speak_about_the_past(
    trained: Path, tmp_path: Path
) -> None:
    path = trained / "parties" / "hillcrest" / "ledger.sqlite"
    kept = tmp_path / "kept.checkpoint"
    kept.write_text(call("ledger", "checkpoint", path).out)
    without = call("ledger", "verify", path)
    assert without.code == 0
    assert "completeness of history not verifiable" in without.out
    with_it = call("ledger", "verify", path, "--checkpoint", kept)
    assert with_it.code == 0
    assert "completeness of history not verifiable" not in with_it.out
    other = call(
        "ledger", "verify", trained / "parties" / "lakeview" / "ledger.sqlite", "--checkpoint", kept
    )
    assert other.code == 2


def test_approve_changes_the_budget_and_says_who(tmp_path: Path) -> None:
    path = _quick(tmp_path)
    words = ("approve", path, "--site", "riverside", "--budget", "7", "--who", "Dr. Ito",
             "--why", "vote 12", "--until", "2999-12-31")  # fmt: skip
    assert "not approved" in call(*words).err  # nobody answers
    assert call(*words, "--yes").code == 0
    opened = Ledger.open(tmp_path / "parties" / "riverside" / "ledger.sqlite")
    assert opened.spent(opened.keys()[0]).epsilon_budget == 7
    (approval,) = opened.approvals()
    assert (approval.who, approval.why, approval.until) == ("Dr. Ito", "vote 12", "2999-12-31")
    assert approval.acted_for == ()
    assert not (tmp_path / "parties" / "lakeview" / "ledger.sqlite").exists()
    assert call("run", path).code == 2  # the others have not approved


def test_report_is_made_again_from_the_ledgers(trained: Path, tmp_path: Path) -> None:
    first = Report.from_json((trained / "report.json").read_bytes())
    again = Report.from_json(call("report", trained, "--json").out)
    unchanging = {"generated"}
    assert again.model_dump(exclude=unchanging) == first.model_dump(exclude=unchanging)
    assert call("report", trained, "--output", tmp_path / "r").code == 0
    assert (tmp_path / "r" / "report.html").is_file()
    from_json = call("report", trained / "report.json", "--output", tmp_path / "j")
    assert from_json.code == 0
    assert (tmp_path / "j" / "report.json").read_text() == (trained / "report.json").read_text()


def test_report_refuses_what_holds_no_run(trained: Path, tmp_path: Path) -> None:
    empty = call("report", tmp_path)
    assert empty.code == 2
    assert "parties/coordinator/ledger.sqlite" in empty.err
    unknown = call("report", trained, "--run", "other")
    assert unknown.code == 2
    assert "knows no run 'other'" in unknown.err
    (tmp_path / "x.json").write_text("{}")
    assert call("report", tmp_path / "x.json").code == 1


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [(), ("init",), ("check",), ("run",), ("demo",), ("epsilon",), ("calibrate",), ("report",),
     ("runs",), ("ledger",), ("ledger", "show"), ("ledger", "verify"), ("approve",)],
)  # fmt: skip
def test_help_teaches_by_example(words: tuple[str, ...]) -> None:
    answer = call(*words, "--help")
    assert answer.code == 0
    assert words in (("ledger",), ("demo",)) or "privagg " + " ".join(words) in answer.out
    assert "[bold]" not in answer.out


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize(
    "words", [(), ("run",), ("tune",), ("verify",), ("approve",), ("report",), ("deploy", "party")]
)
def test_help_breaks_its_lines_where_the_terminal_does(words: tuple[str, ...], width: int) -> None:
    """Sentences were cut where the source's lines end, whatever the width."""
    prose = call(*words, "--help", COLUMNS=str(width)).out.split("╭")[0]
    paragraphs = [
        [line.strip() for line in block.splitlines()]
        for block in re.split(r"\n\s*\n", prose)
        if not re.search("^  ", block, re.MULTILINE)  # examples
    ]
    assert len(paragraphs) > 2
    for lines in paragraphs:
        for line, following in itertools.pairwise(lines):
            assert len(line) + 1 + len(following.split()[0]) > width - 2


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert call("--version").out == f"privagg {project['project']['version']}\n"
