"""What is told of a round while it lasts: public numbers, whoever is sampled."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from privagg.cli.live import RoundLines
from privagg.privacy.plan import ClientPlan, DistributedPlan, LocalPlan, SiteTerms
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.learners import make_learner
from privagg.training import progress
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule
from privagg.training.models import build_model
from privagg.training.progress import Progress, every_while, watching

SAMPLED = {"sampling_rate": Decimal("0.5")}


def plan_of(kind: type, **facts: Any) -> Any:
    sites = [SiteTerms(name=name, dataset=name, records=40) for name in ("a", "b")]
    return kind(
        sites=sites, custody="authority", scheme="plaintext", delta=Decimal("1e-5"), rounds=3,
        dimension=4, clip_norm_l2=Decimal(1), noise_multiplier=Decimal(2), **facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (plan_of(DistributedPlan, **SAMPLED), 1),
        (plan_of(LocalPlan, local_steps=2, update_bound=Decimal(1), **SAMPLED), 2),
        (plan_of(ClientPlan), 3),
    ],
    ids=["distributed", "local", "client"],
)
def test_every_batch_of_a_public_number_is_told_whoever_is_there(plan: Any, steps: int) -> None:
    told = []
    rule = ClientRule(steps=3, physical_batch=16)
    of = (plan.step_batches("a", 16) or 1) * steps
    assert of > steps or not plan.record_rate
    for count in (40, 1):
        records = TensorRecords.of(np.ones((count, 3)), np.arange(count) % 2)
        model = build_model("logistic", (3,), 2)
        learner = make_learner(plan, "a", model=model, records=records, rule=rule)
        with watching(lambda found: told.append((found.site, found.round, found.done, found.of))):
            learner.contribution(np.zeros(4), DeterministicRandomness(1), ("run", 2, 1))
        learner.contribution(np.zeros(4), DeterministicRandomness(1), ("run", 2, 2))
    assert told == 2 * [("a", 2, done, of) for done in range(1, of + 1)]


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = 100.0, list[str]()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with watching(every_while(lines.append, seconds=10)):
        for number in (1, 2):
            found = Progress("north", number, of=8)
            for _ in range(8):
                found.advance()
                now += 4
    assert lines == [
        f"round {number}: {done} of 8 batches done at north" for number in (1, 2) for done in (4, 7)
    ]


def test_the_terminal_shows_the_batches_of_a_site_until_all_are_done() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=100)
    lines = RoundLines(out, 5, ("north",), shown=())
    shown = lines.progress.tasks[1]
    with lines.live():
        work = Progress("north", 2, of=3)
        assert not shown.visible
        work.advance()
        assert (shown.visible, shown.completed, shown.total) == (True, 1, 3)
        assert shown.description == "round 2, north, batches"
        work.advance()
        work.advance()
        assert not shown.visible
    work.advance()
    assert shown.completed == 3
