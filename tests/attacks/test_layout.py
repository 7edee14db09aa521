"""Models that see time where records should be, or look at who is beside a record.

The stories ask what one record can do to a learner's contribution without noise, whichever way the
learner computes it: either the model is refused before anything is charged, or the record moves the
sum by at most S.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
import torch
from torch import nn

from privagg.errors import ModelError
from privagg.privacy.plan import DistributedPlan, SiteTerms
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.learners import make_learner
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule, EngineName
from privagg.training.models import get_parameters, require_separable
from tests.zoo import ACCEPTED, REFUSED, VOCABULARY, Case, Computed

S = 2**16
PLACE = ("run", 1, 1)
RANDOM = DeterministicRandomness(b"layout")


def contribution(
    model: nn.Module, records: TensorRecords, rows: int = 64, engine: EngineName = "exact"
) -> np.ndarray:
    """What a site's learner makes of all its records, with no noise on top."""
    parameters = get_parameters(model)
    plan = DistributedPlan(
        sites=[SiteTerms(name=name, records=10**4) for name in ("a", "b")],
        dimension=len(parameters),
        rounds=1,
        clip_norm_l2=Decimal(1),
        sensitivity_grid=S,
        noise_multiplier=Decimal(0),
        sampling_rate=Decimal(1),
        delta=Decimal("1e-5"),
        custody="authority",
        scheme="plaintext",
    )
    require_separable(model, records.input_shape, 2)
    rule = ClientRule(physical_batch=rows, engine=engine)
    learner = make_learner(plan, "a", model=model, records=records, rule=rule)
    return learner.contribution(parameters, RANDOM, PLACE)


def site_records(case: Case, count: int, *, seed: int = 1) -> TensorRecords:
    """Records as the case's model takes them."""
    rng = np.random.default_rng(seed)
    if case.tokens:
        x = rng.integers(0, VOCABULARY, (count, *case.shape)).astype(np.float64)
    else:
        x = rng.standard_normal((count, *case.shape))
    return TensorRecords.of(x, rng.integers(0, 2, count))


def made(case: Case) -> nn.Module:
    torch.manual_seed(3)
    return case.make()


def test_one_record_of_300s_cannot_hide_among_the_steps() -> None:
    """64 steps and 64 rows: every row was a step, summed over records, and 41 S from one record."""
    case = REFUSED["time first, numbers"]
    records = site_records(case, 64)
    signs = torch.sign(torch.sin(torch.arange(128.0) * 1.9)).reshape(64, 2)
    records.x[0] = 300 * signs
    with pytest.raises(ModelError, match=rf"{case.layer}.*Nothing was charged"):
        contribution(made(case), records)


def test_tokens_read_time_first_are_refused() -> None:
    """Embedding, Linear and LayerNorm on 64 tokens: 5 S from one record."""
    case = REFUSED["time first, tokens"]
    with pytest.raises(ModelError, match=case.layer):
        contribution(made(case), site_records(case, 64))


@pytest.mark.parametrize("rows", [1, 7, 48, 64, 199])
def test_a_layout_is_refused_at_any_number_of_rows(rows: int) -> None:
    for kind in ("time first, numbers", "time folded into the batch"):
        case = REFUSED[kind]
        with pytest.raises(ModelError, match=case.layer):
            contribution(made(case), site_records(case, 10), rows)


@pytest.mark.parametrize(
    "unlike",
    [
        lambda x: torch.isinf(x).any(),
        lambda x: torch.isnan(x).any(),
        lambda x: (x.abs() > 1e30).any(),
        lambda x: (x == -300).any(),
        lambda x: ((x != 0) & (x.abs() < 1e-38)).any(),
    ],
    ids=["infinite", "not a number", "huge", "large", "denormal"],
)
def test_a_model_that_minds_strange_neighbours_is_refused(unlike: object) -> None:
    """Its outputs depend on others only when one of them is strange, and then by a last bit."""
    model = Computed(
        lambda m, x: m.head(x * (1 + 1e-6 * unlike(x.detach()))),  # type: ignore[operator]
        head=nn.Linear(4, 2),
    )
    records = TensorRecords.of(np.random.default_rng(0).standard_normal((9, 4)), np.arange(9) % 2)
    with pytest.raises(ModelError, match="changes in .* numbers with .* beside it"):
        contribution(model, records)


@pytest.mark.parametrize("kind", ACCEPTED)
def test_whatever_is_accepted_moves_by_at_most_s(kind: str) -> None:
    """One record more, tame or wild, in the last place; exact integers."""
    case = ACCEPTED[kind]
    records = site_records(case, 11)
    if not case.tokens:
        records.x[10] = 300 * torch.sign(records.x[10])
    fewer = records.take(range(10))
    moved = contribution(made(case), records) - contribution(made(case), fewer)
    assert sum(int(value) ** 2 for value in moved) <= S**2
