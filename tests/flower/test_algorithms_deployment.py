"""Sites that come and go, FedMA, class logits and programs between real processes.

Each once, with networks that their owners name in `party.toml`. The same job in one process, with
the same randomness, ends with the same bytes, and every site is charged the same in both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.config.setup import TRAINING
from privagg.flower.bridge.transport import Patience
from privagg.flower.deploy import processes as parts
from privagg.flower.deploy.trial import Trial
from privagg.flower.submit import follow_run, submit_run
from privagg.party.folder import PartyFolder
from privagg.party.open import ledger_here
from privagg.privacy.randomness import DeterministicRandomness
from privagg.run.local import Run
from privagg.training.saving import tensor_bytes
from tests.approvals import approved, approved_trial
from tests.flower.heart import SEED, make_deployment
from tests.flower.story import story
from tests.flower.test_deployment import ledger_of, supervised
from tests.run.small import write_small

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = "questions"
SITES = {"north": 30, "south": 24, "west": 20, "east": 22}
PATIENCE = Patience(answer_seconds=120.0, absent_seconds=240.0)
STEPS = 'local_steps = 3\nlocal_learning_rate = 0.3\nlocal_batch_size = 8\nalgorithm = "{}"'
ASK = """
[ask]
epsilon = 4
program = "{}"
"""
DISTILL = """
[ask.settings]
queries = [[30, 20], [70, 41], ["", 22.5]]
shards = 4
votes = "shared"
teachers = { north = "forest", south = "logistic", west = "network", east = "forest" }
"""
OWN = {"1.weight": (3, 2), "1.bias": (3,), "3.weight": (1, 3), "3.bias": (1,)}
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "joining": ("", {"north": "last_round = 3\n", "west": "first_round = 2\n"}),
    "fedma": (STEPS.format("fedma"), {}),
    "class-logits": (STEPS.format("class-logits"), {}),
    "distill": ("", {}),
    "scorecard": ("", {}),
    "boosted-trees": ("", {}),
}
PROGRAMS = ("distill", "scorecard", "boosted-trees")
NETWORKS = {
    "fedma": 'network = "own.safetensors"\n',
    "class-logits": 'network = { kind = "mlp", hidden = [2, 3] }\n',
}
"""What north's owner says in its own folder."""


def write(folder: Path, case: str, *, own: str = "") -> Path:
    """The configuration; `own` stands in north's section."""
    training, spans = CASES[case]
    path = write_small(folder, rounds=4, scheme="masked", sites=SITES, spans=spans)
    text = path.read_text()
    if training:
        text = text.replace("epsilon = 50", 'mode = "client"\nepsilon = 50', 1)
        text = text.replace('model = "logistic"', 'model = { kind = "mlp", hidden = [4] }')
        text = text.replace("sampling_rate = 0.5", training)
        text = text.replace('optimizer = { kind = "adam", learning_rate = 0.1 }', "")
    if case == "class-logits":
        text = text.replace('[evaluation]\ndata = "public.csv"\npublic = true\n', "")
    text = text.replace('data = "north.csv"\n', f'data = "north.csv"\n{own}')
    text += ASK.format(case) if case in PROGRAMS else ""
    path.write_text(text + (DISTILL if case == "distill" else ""))
    draw = np.random.default_rng(1)
    drawn = {name: draw.standard_normal(shape) for name, shape in OWN.items()}
    (folder / "own.safetensors").write_bytes(tensor_bytes(drawn))
    return path


@pytest.mark.deployment
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.nightly) for case in CASES])
def test_between_processes_it_ends_as_in_one(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(parts, "RESIDENT", "tests.flower.deterministic")
    job = QUESTIONS if case in PROGRAMS else TRAINING
    trial = make_deployment(write(tmp_path / "agreed", case), tmp_path / "p")
    if job != TRAINING:
        approved_trial(trial, job)
    bring_a_network(trial.parties["north"].party, case, tmp_path / "agreed")
    with supervised(trial):
        begun = submit_run(trial.coordinator, patience=PATIENCE, job=job)
        result = follow_run(begun)
    assert (result["outcome"], result["missing"]) == ("finished", {}), result
    assert verify_file(Path(result["bundle"]), Brought()).holds
    check_against_one_process(trial, case, job, begun.run, tmp_path / "alone")


def bring_a_network(folder: PartyFolder, case: str, agreed: Path) -> None:
    with folder.party_file.open("a") as file:
        file.write(NETWORKS.get(case, ""))
    (folder.root / "own.safetensors").write_bytes((agreed / "own.safetensors").read_bytes())


def check_against_one_process(trial: Trial, case: str, job: str, run: str, folder: Path) -> None:
    """The same plan with north's network in the configuration: the same bytes, the same charges."""
    federation = approved(Federation.from_toml(write(folder, case, own=NETWORKS.get(case, ""))))
    setup = federation.setup
    if job == QUESTIONS:
        facts = {"who": "tester", "why": "a test", "overlaps": "a test"}
        federation.approve(job=QUESTIONS, without_guarantee=True, **facts)
        setup = federation.asking
    alone = Run(setup, DeterministicRandomness(SEED), run).drive(None)
    left = alone.model if alone.answers is None else alone.answers
    place = trial.coordinator.party.run_folder(run)
    assert left is not None
    assert left.read_bytes() == (place / left.name).read_bytes()
    for name in SITES:
        assert story(ledger_of(trial, name)) == story(ledger_here(setup, name)), name
