"""Algorithms through whole runs: every scheme, a kill, the ledger, and a model of a site's own."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from privagg import Federation
from privagg.cli.app import app
from privagg.errors import ConfigError, ModelError
from privagg.party.home import FolderHome
from privagg.party.local import local_folder
from privagg.party.personal import HomeRule
from privagg.privacy.randomness import DeterministicRandomness
from privagg.protocol.in_memory import LocalTransport
from privagg.report.model import Report
from privagg.report.sentences import summarise
from privagg.run import local
from privagg.training.saving import tensor_bytes
from tests.approvals import approved
from tests.faults import Fragile, Killed
from tests.run.small import RUN, ledgers_of, require_evidence, run_small, told, write_small

pytestmark = pytest.mark.usefixtures("no_page")

PUBLIC = '[evaluation]\ndata = "public.csv"\npublic = true\n'
FEDREP = '{ kind = "fedrep", personal = ["3.*"], personal_steps = 2 }'
FEDMA = '{ kind = "fedma", count_share = 0.3 }'
PER_FEDAVG = '{ kind = "per-fedavg", inner_learning_rate = 0.3 }'


def written(folder: Path, algorithm: str, scheme: str = "plaintext", mode: str = "client") -> str:
    """A small federation's file, its sites training by an algorithm."""
    path = write_small(folder, rounds=3, scheme=scheme)
    text = path.read_text().replace("epsilon = 50", f'mode = "{mode}"\nepsilon = 50', 1)
    text = text.replace('model = "logistic"', 'model = { kind = "mlp", hidden = [4] }')
    steps = "local_steps = 4\nlocal_learning_rate = 0.3\nlocal_batch_size = 8"
    rate = "sampling_rate = 0.5"
    text = text.replace(rate, steps if mode == "client" else f"{rate}\nlocal_steps = 3")
    text = text.replace('optimizer = { kind = "adam", learning_rate = 0.1 }', "")
    if mode == "client" and scheme != "masked":
        text = text.replace("[training]", "colluders = 0\n\n[training]")
    if "fedrep" in algorithm or "class-logits" in algorithm:
        text = text.replace(PUBLIC, "")
    if "fedma" in algorithm:
        text = text.replace('data = "north.csv"', 'data = "north.csv"\nnetwork = "own.safetensors"')
        own = {"1.weight": (3, 2), "1.bias": (3,), "3.weight": (1, 3), "3.bias": (1,)}
        draw = np.random.default_rng(1)
        drawn = {name: draw.standard_normal(shape) for name, shape in own.items()}
        (folder / "own.safetensors").write_bytes(tensor_bytes(drawn))
    path.write_text(text.replace("[secure]", f"algorithm = {algorithm}\n\n[secure]"))
    return str(path)


def made(folder: Path, *said: str) -> Federation:
    return approved(Federation.from_toml(written(folder, *said)))


@pytest.mark.parametrize(
    "algorithm",
    [
        FEDMA,
        pytest.param('"adaptive-clip"', marks=pytest.mark.nightly),
        pytest.param(PER_FEDAVG, marks=pytest.mark.nightly),
    ],
)
def test_every_scheme_opens_the_same_integers(algorithm: str, tmp_path: Path) -> None:
    models = set()
    for scheme in ("plaintext", "masked"):
        federation = made(tmp_path / scheme, algorithm, scheme)
        result = run_small(federation)
        require_evidence(result)
        assert result.model is not None
        tensors = sorted(load_file(result.model).items())
        models.add(b"".join(values.tobytes() for _, values in tensors))
    assert len(models) == 1


@pytest.mark.parametrize(
    ("algorithm", "mode"),
    [
        pytest.param(FEDREP, "client", marks=pytest.mark.nightly),
        (FEDMA, "client"),
        ('"class-logits"', "client"),
        pytest.param('"scaffold"', "client", marks=pytest.mark.nightly),
        pytest.param('"scaffold"', "record-local", marks=pytest.mark.nightly),
    ],
)
def test_a_killed_run_goes_on_with_what_lies_at_home(
    algorithm: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = made(tmp_path / "cut", algorithm, "plaintext", mode)

    def dying(handlers: Mapping[str, Any]) -> Any:
        return Fragile(LocalTransport(handlers), 6, before=False)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(local, "LocalTransport", dying)
        run_small(federation)
    home = local_folder(federation.setup.output, "north").home
    assert [path.stat().st_mode & 0o777 for path in home.rglob("*.safetensors")] == [0o600] * 2
    source = federation.setup.source
    assert source is not None
    again = Federation.from_toml(source)
    result = run_small(again, resume=RUN)
    require_evidence(result)
    whole = made(tmp_path / "whole", algorithm, "plaintext", mode)
    assert told(result) == told(run_small(whole))
    kept = FolderHome(home).last()
    stays = "fedrep" in algorithm or "class-logits" in algorithm
    assert (kept is not None) == stays  # a variate is of no use after its run


def test_a_personal_model_is_trained_at_home_and_charges_nothing(tmp_path: Path) -> None:
    federation = made(tmp_path, FEDREP)
    run_small(federation)
    before = ledgers_of(federation)
    plain = federation.personalise("north", rule=HomeRule(steps=30, held_out=0.3))
    assert ledgers_of(federation) == before
    assert stat.S_IMODE(plain.path.stat().st_mode) == 0o600
    assert plain.path.parent == local_folder(federation.setup.output, "north").root
    assert set(plain.opened) == set(plain.personal)
    rows = json.loads((federation.setup.output / "report.json").read_text())["sites"][0]
    (served,) = (row for row in rows["guarantees"] if row["observer"] == "personal")
    assert served["epsilon"] == "Infinity"
    predicted = federation.predict(tmp_path / "public.csv", model=plain.path)
    assert predicted.shape == (20, 2)
    own, opened = load_file(plain.path), load_file(federation.setup.output / "model.safetensors")
    random = DeterministicRandomness(3)
    held = federation.personalise("north", rule=HomeRule(pull=9.0), randomness=random)
    free = federation.personalise("south", rule=HomeRule(pull=0.0), randomness=random)
    assert held.path != free.path
    pulled = load_file(held.path)
    assert (own["3.weight"] != opened["3.weight"]).any()  # the site's own head, not the first one
    far = [np.abs(each["1.weight"] - opened["1.weight"]).max() for each in (pulled, own)]
    assert far[0] < far[1]


def test_sites_of_several_architectures_share_class_logits(tmp_path: Path) -> None:
    path = Path(written(tmp_path, '"class-logits"', "masked"))
    own = 'data = "north.csv"\nnetwork = { kind = "mlp", hidden = [3, 2] }'
    text = path.read_text().replace('data = "north.csv"', own)
    path.write_text(text.replace('data = "south.csv"', 'data = "south.csv"\nnetwork = "logistic"'))
    federation = approved(Federation.from_toml(path))
    told = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert "networks of their own" in told.output
    assert "north (mlp), south (logistic)" in told.output
    result = run_small(federation)
    require_evidence(result)
    assert result.model is not None
    assert load_file(result.model)["table"].shape == (2, 2)
    said = summarise(Report.model_validate_json(result.report_json.read_text()))[0]
    assert "one table of class logits with 4 parameters, beside which each site's" in said
    for site, names in (("north", 6), ("south", 2)):
        made = federation.personalise(site, rule=HomeRule(steps=5))
        assert len(load_file(made.path)) == names
        predicted = federation.predict(tmp_path / "public.csv", model=made.path)
        said = ["predict", str(made.path), str(tmp_path / "public.csv")]
        lines = CliRunner().invoke(app, said).output.splitlines()
        np.testing.assert_allclose(np.loadtxt(lines[1:], delimiter=","), predicted, atol=1e-4)


def test_another_network_begins_anew_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    """What was kept for another architecture goes into no parameter; nothing is spent."""
    path = Path(written(tmp_path, '"class-logits"'))
    plain = path.read_text()
    federation = approved(Federation.from_toml(path))
    run_small(federation)
    own = 'data = "north.csv"\nnetwork = { kind = "mlp", hidden = [7] }'
    path.write_text(plain.replace('data = "north.csv"', own))
    with pytest.raises(ConfigError, match="keeps no part of this model"):
        Federation.from_toml(path).personalise("north")
    run_small(Federation.from_toml(path), run_id="small-2")
    assert Federation.from_toml(path).personalise("north").path.exists()
    before = ledgers_of(federation)
    for named, said in (("oak", "unknown model 'oak'"), ("os:system", "never a factory")):
        other = f'data = "north.csv"\nnetwork = "{named}"'
        path.write_text(plain.replace('data = "north.csv"', other))
        with pytest.raises((ConfigError, ModelError), match=said):
            run_small(Federation.from_toml(path), run_id="small-3")
    assert ledgers_of(federation) == before


def test_from_the_command_line(tmp_path: Path) -> None:
    federation = made(tmp_path, '"fedavg"')
    run_small(federation)
    source = str(federation.setup.source)
    model = str(federation.setup.output / "model.safetensors")
    said = ["personalise", model, "--config", source, "--site", "north", "--steps", "5"]
    result = CliRunner().invoke(app, said)
    assert result.exit_code == 0, result.output
    assert "as opened" in result.output
    assert "nothing" in result.output


@pytest.mark.parametrize(
    ("algorithm", "mode", "said"),
    [
        (FEDMA, "record-local", "a site's whole update that is clipped"),
        ('"scaffold"', "record-distributed", "holds one share of the noise would carry more"),
        (FEDREP, "record-distributed", "what a site keeps from its records depends on all"),
        (FEDREP, "record-local", "one more record would change every later upload"),
        ('"adaptive-clip"', "record-local", "a site's whole update that is clipped"),
        ('"halves"', "client", "leaving one out would open sums that differ by a single site"),
    ],
)
def test_what_does_not_hold_is_refused_with_the_reason(
    algorithm: str, mode: str, said: str, tmp_path: Path
) -> None:
    text = Path(written(tmp_path, algorithm, "plaintext", mode)).read_text()
    text = text.replace("local_steps = 3\n", "") if mode == "record-distributed" else text
    (tmp_path / "small.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        Federation.from_toml(tmp_path / "small.toml")


def test_a_network_of_a_sites_own_is_fedmas(tmp_path: Path) -> None:
    """Refused beside another algorithm; and, before anything is spent, where it does not fit."""
    path = Path(written(tmp_path, FEDMA))
    federation = approved(Federation.from_toml(path))
    before = ledgers_of(federation)
    (tmp_path / "own.safetensors").write_bytes(tensor_bytes({"1.weight": np.ones((9, 9))}))
    with pytest.raises(ConfigError, match=r"holds 1\.weight \(9, 9\).* at most 4 hidden neurons"):
        run_small(federation)
    assert ledgers_of(federation) == before
    path.write_text(path.read_text().replace(FEDMA, '"fedavg"'))
    with pytest.raises(ConfigError, match=r"sites\[north\]\.network has no effect with training"):
        Federation.from_toml(path)
