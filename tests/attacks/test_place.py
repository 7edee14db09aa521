"""A record's place: one more record must not move the bits of the others.

The last bits of a gradient depend on the row in the physical batch. Where the row is the rank among
the sampled records, one more record moves all later ones by a row, and data tuned so that each
coordinate lies on one side of a grid point in one row and on the other side in the next add up to
more than S. In slots that do not follow from who else is sampled, only the record itself counts.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import DataError, PlanError
from privagg.privacy.plan import DistributedPlan, LocalPlan, TrainingPlan, load_plan
from privagg.privacy.randomness import DeterministicRandomness, SystemRandomness
from privagg.programs.learners import make_learner
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.dpsgd import DpSgd
from privagg.training.draws import place_records
from privagg.training.models import build_model, set_parameters
from privagg.training.torch_state import deterministic_torch

S, CLIP, ROWS = 2**16, 2.0, 64
FEATURES, CLASSES, SHARED = 30, 10, 13
PLACE = ("run", 1, 1)
OLD_BUNDLE = Path(__file__).parents[1] / "vectors" / "bundle-649ed6a.privagg.zip"


@pytest.fixture(autouse=True)
def _one_thread():
    with deterministic_torch():
        yield


def trainer_of(x: np.ndarray, y: np.ndarray, sensitivity: int = S) -> DpSgd:
    """Logistic regression over all records at once, one more slot than there are records."""
    model = build_model("logistic", (FEATURES,), CLASSES)
    grid = Grid(CLIP, sensitivity)
    return DpSgd(
        model, TensorRecords.of(x, y), grid, physical_batch=ROWS, batches=len(y) // ROWS + 1
    )


def gradients_of(x: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """The gradient of one input of class 0 in every row of a batch, float32 (ROWS, d)."""
    ours = trainer_of(np.tile(x, (ROWS, 1)), np.zeros(ROWS))
    set_parameters(ours.model, parameters)
    return ours.per_record_gradients(np.arange(ROWS))


@dataclass(frozen=True)
class Tuned:
    """An input whose gradient lies across grid points between row `row` and the next."""

    parameters: np.ndarray
    x: np.ndarray
    row: int


def tuned_input() -> Tuned:
    """Searches models and inputs for the largest change between rows, then tunes the rest of x.

    A weight's gradient is the output's times the input, so each further input is chosen with the
    grid point between the two products.
    """
    rng, best = np.random.default_rng(5), (0.0, np.zeros(0), np.zeros(0), 0, 0.0, 0.0)
    for _ in range(120):
        weights = np.zeros((CLASSES, FEATURES))
        weights[:, :SHARED] = rng.standard_normal((CLASSES, SHARED)) * 12
        parameters = np.concatenate([weights.ravel(), np.zeros(CLASSES)])
        x = np.full(FEATURES, 0.01, np.float32)
        x[:SHARED] = rng.standard_normal(SHARED) * 0.08
        outputs = np.abs(gradients_of(x, parameters)[:, -CLASSES:].astype(np.float64))
        change = np.abs(np.diff(outputs, axis=0)) / np.maximum(outputs[:-1], 1e-30)
        change[outputs[:-1] < 0.02] = 0
        row, output = np.unravel_index(change.argmax(), change.shape)
        if change[row, output] > best[0]:
            pair = np.sort(outputs[row : row + 2, output])
            best = (float(change[row, output]), parameters, x, int(row), *map(float, pair))
    _, parameters, x, row, low, high = best
    assert low < high, "no row of this machine's kernels differs from the next"
    for column in range(SHARED, FEATURES):
        x[column] = _across_a_grid_point(low, high)
    return Tuned(parameters, x, row)


def _across_a_grid_point(low: float, high: float) -> np.float32:
    """The least input from 0.02 on whose products with the two outputs truncate differently."""
    unit = S / CLIP
    for level in range(int(0.02 * unit * low) + 1, int(0.25 * unit * low) + 3):
        near = np.float32(level / unit / low)
        bits = near.view(np.int32) + np.arange(-8, 9, dtype=np.int32)
        inputs = bits.view(np.float32)
        below, above = (
            np.floor((np.float32(output) * inputs).astype(np.float64) * unit)
            for output in (low, high)
        )
        if (above > below).any():
            return inputs[np.flatnonzero(above > below)[0]]
    return np.float32(0)


def attack_data(tuned: Tuned, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Record 0 is the one more, all zeros; the tuned input lies in every second row of the rest."""
    x, y = np.zeros((count + 1, FEATURES), np.float32), np.zeros(count + 1)
    x[1 + np.arange(tuned.row % 2, count, 2)] = tuned.x
    return x, y


def by_rank(trainer: DpSgd, mask: np.ndarray) -> np.ndarray:
    """The places of 649ed6a: a record's slot is its rank among those that are sampled."""
    places, sampled = np.full(trainer.slot_count, -1), np.flatnonzero(mask)
    places[: len(sampled)] = sampled
    return places


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    with deterministic_torch():
        return tuned_input()


def test_rows_by_rank_let_one_record_move_the_sum_by_more_than_s(tuned: Tuned) -> None:
    """The control: the search is strong enough to break what was there before."""
    x, y = attack_data(tuned, 51_200)
    ours, everybody = trainer_of(x, y), np.ones(len(y), dtype=bool)
    others = everybody.copy()
    others[0] = False
    both, without = (
        ours.slotted_sum(tuned.parameters, by_rank(ours, mask)) for mask in (everybody, others)
    )
    assert np.linalg.norm((both - without).astype(np.float64)) >= 1.5 * S


@pytest.mark.parametrize("draw", range(2))
def test_in_slots_the_same_record_moves_it_by_its_own_gradient_alone(
    tuned: Tuned, draw: int
) -> None:
    x, y = attack_data(tuned, 51_200)
    ours = trainer_of(x, y)
    stream = DeterministicRandomness(draw).stream("slots")
    places = place_records(stream, np.roll(np.arange(len(y)), -1), ours.slot_count)
    without = np.where(places == 0, -1, places)  # the others stay where they are
    alone = np.where(places == 0, 0, -1)
    moved = ours.slotted_sum(tuned.parameters, places) - ours.slotted_sum(tuned.parameters, without)
    assert sum(int(z) ** 2 for z in moved) <= S**2
    np.testing.assert_array_equal(moved, ours.slotted_sum(tuned.parameters, alone))


# --- a record that fails -----------------------------------------------------------------------


class Tokens(nn.Module):
    """Refuses a batch with a token that its embedding lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.embedding(x.long()).mean(dim=1)))


class Moody(Tokens):
    """Takes a record of token 9 until its parameters have moved: no test before a round sees it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x == 9).any()) and float(self.last.bias.detach().sum()) > 100:
            raise RuntimeError("a record that this model does not like now")
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "bad", "same_passes"), [(Tokens, 10, True), (Tokens, -1, True), (Moody, 9, False)]
)
def test_a_record_that_fails_moves_no_other_by_a_bit(
    model: type[Tokens], bad: int, same_passes: bool
) -> None:
    """Before, its batch was done again record by record in row 0, and took fifty times as long.

    What fails at some parameters only still costs passes, two for each halving; the others' bits
    stay all the same.
    """
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, (40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    x[17] = bad
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = DpSgd(model(), TensorRecords.of(x, y), Grid(1.0, S), physical_batch=16)
    passes = []
    ours.model.register_forward_hook(lambda *_: passes.append(1))
    parameters = rng.standard_normal(ours.dimension)
    parameters[-1] = 200.0
    everybody = np.random.default_rng(1).permutation(np.r_[np.arange(40), np.full(8, -1)])
    others = np.where(everybody == 17, -1, everybody)
    passes.clear()
    without = ours.slotted_sum(parameters, others)
    expected = len(passes)
    np.testing.assert_array_equal(ours.slotted_sum(parameters, everybody), without)
    more = len(passes) - 2 * expected
    assert expected == 3
    assert more == 0 if same_passes else 0 < more <= 2 * 4
    assert without.any()


def test_the_number_of_batches_is_public() -> None:
    """Nobody sampled, or everybody whom the slots have room for: the same passes."""
    rng = np.random.default_rng(3)
    records = TensorRecords.of(rng.standard_normal((300, FEATURES)), np.zeros(300))
    counted = []
    for count in (0, 1, 300):
        learner = make_learner(
            plan_of(sampling_rate="0.5"), "a", model=build_model("logistic", (FEATURES,), CLASSES),
            records=records.take(range(count)), rule=ClientRule(physical_batch=16),
        )  # fmt: skip
        passes: list[int] = []
        learner._trainer.model.register_forward_hook(lambda *_, seen=passes: seen.append(1))
        learner.contribution(np.zeros(310), SystemRandomness(), PLACE)
        counted.append(len(passes))
    assert len(set(counted)) == 1


def plan_of(**facts: object) -> DistributedPlan:
    base = {
        "sites": [{"name": name, "records": 300} for name in ("a", "b")],
        "dimension": 310, "rounds": 3, "clip_norm_l2": Decimal(1), "noise_multiplier": Decimal(1),
        "delta": Decimal("1e-5"), "custody": "authority", "scheme": "bfv", "sampling_rate": "0.1",
    }  # fmt: skip
    return DistributedPlan.model_validate({**base, **facts})


@pytest.mark.parametrize("steps", [0, 3])
def test_a_site_with_more_records_than_it_declared_joins_nothing(steps: int) -> None:
    """Slots are for declared records; the refusal is one text, however many there are."""
    texts, plan = set(), plan_of()
    if steps:
        facts = plan_of().model_dump(exclude={"mode"}) | {"local_steps": steps, "update_bound": 1}
        plan = LocalPlan.model_validate(
            {k: v for k, v in facts.items() if k in LocalPlan.model_fields}
        )
    for count in (301, 1000):
        records = TensorRecords.of(np.zeros((count, FEATURES)), np.zeros(count))
        model = build_model("logistic", (FEATURES,), CLASSES)
        with pytest.raises(DataError, match="more usable records than the 300") as caught:
            make_learner(plan, "a", model=model, records=records, rule=ClientRule())
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_a_plan_of_649ed6a_keeps_its_digest_and_its_event() -> None:
    """What was charged then is what is recomputed now."""
    ledger, plan = old_ledger("riverside")
    assert plan.digest == ledger[0]["plan_digest"]
    event = plan.committed_event("riverside").model_dump(mode="json")
    assert [charge["event"] for charge in ledger] == [event] * len(ledger)


def old_ledger(site: str) -> tuple[list[dict[str, Any]], TrainingPlan]:
    """The charges of a site in the stored bundle, and the plan that its report states."""
    with zipfile.ZipFile(OLD_BUNDLE) as bundle:
        lines = bundle.read(f"ledgers/{site}.jsonl").splitlines()
        report = json.loads(bundle.read("report.json"))
    entries = [json.loads(line) for line in lines]
    charges = [entry["payload"] for entry in entries if entry.get("kind") == "charge"]
    return charges, load_plan(report["plan"])


def test_a_plan_that_places_by_rank_is_read_and_not_trained() -> None:
    old = plan_of(version=1)
    assert old.committed_event("a").distance < plan_of().committed_event("a").distance
    records = TensorRecords.of(np.zeros((9, FEATURES)), np.zeros(9))
    model = build_model("logistic", (FEATURES,), CLASSES)
    with pytest.raises(PlanError, match="by rank"):
        make_learner(old, "a", model=model, records=records, rule=ClientRule())
