"""What a private step costs beside a plain one: processor time and memory, one thread.

    python -m tests.benchmarks.training --json out/training.json [--short] [--only WORD]

`ratio` is the learner's processor time for a round (sampling, slots, clipping; noise beside it)
over K plain steps of the same batch, K the round's public number of batches. In turns with them:
`hooks`, the learner with engine `opacus`; `ghost`, stock Opacus ghost clipping through K steps;
`before` is `hooks`, which is how every round was computed before there was another engine.
All use the grid of a plan that leaves it out (`grid`).
`overhead` is K·B over the expected number of sampled records. `peak_mib` is the peak memory of a
process that does a round and nothing else, imports and the making of the model included;
`plain_peak_mib` that of one that does as many plain steps; `memory` is their ratio. `growth_mib` is
what the round itself adds to all before it.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.layers import DPMultiheadAttention
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn
from torch.nn import functional

from privagg.privacy.plan import DistributedPlan
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.learners import make_learner
from privagg.training.data import TensorRecords
from privagg.training.declared import ClientRule, EngineName, ModelSpec
from privagg.training.draws import Draws
from privagg.training.ghost.grids import USUAL_GRID, coarsest
from privagg.training.models import build_model, get_parameters
from privagg.training.rehearsal import RecordsApart
from privagg.training.torch_state import deterministic_torch
from tests.benchmarks.tables import show, write_json
from tests.benchmarks.timing import peak_mib

TOKENS, VOCABULARY, WIDTH = 64, 1000, 256


class Block(nn.Module):
    """A transformer's layer of Opacus' attention, normalised first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = DPMultiheadAttention(WIDTH, 4, batch_first=True)
        self.wide, self.back = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.before(x)
        x = x + self.attention(a, a, a, need_weights=False)[0]
        return x + self.back(functional.gelu(self.wide(self.between(x))))


class Transformer(nn.Module):
    """Four layers of width 256 over 64 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.tokens(x.long())).mean(dim=1))


def wide_cnn() -> nn.Module:
    """Half a million parameters on images of 3x32x32."""
    layers: list[nn.Module] = []
    for m, o in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(m, o, 3, padding=1), nn.GroupNorm(8, o), nn.Tanh(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 192), nn.Tanh(), nn.Linear(192, 10))


@dataclass(frozen=True)
class Case:
    """One row: a model, what it takes, and the largest ratio that is allowed."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    batch: int
    expected: int
    most: float
    tokens: bool = False
    rate: str = "0.5"
    engine: EngineName = "exact"
    most_memory: float = math.inf

    def records(self, count: int) -> TensorRecords:
        """Made-up records of public randomness."""
        rng = np.random.default_rng(1)
        x = (
            rng.integers(0, VOCABULARY, (count, *self.shape)).astype(np.float32)
            if self.tokens
            else rng.standard_normal((count, *self.shape), dtype=np.float32)
        )
        return TensorRecords(
            torch.from_numpy(x), torch.from_numpy(rng.integers(0, self.classes, count))
        )


def _built(kind: str, shape: tuple[int, ...], **facts: Any) -> Callable[[], nn.Module]:
    return lambda: build_model(ModelSpec(kind=kind, **facts), shape, 10)


CASES = (
    Case("mlp 784-128-10", _built("mlp", (784,), hidden=(128,)), (784,), 10, 512, 4096, 2.2),
    Case("small cnn 28x28", _built("cnn", (1, 28, 28)), (1, 28, 28), 10, 512, 4096, 1.45),
    Case("cnn 3x32x32", wide_cnn, (3, 32, 32), 10, 64, 4096, 1.6),
    Case("transformer", Transformer, (TOKENS,), 2, 64, 512, 1.45, True, "0.9",
         most_memory=1.5),
    Case("logistic 784-10", _built("logistic", (784,)), (784,), 10, 512, 4096, 2.7),
    Case("mlp 784-128-10, exact dense", _built("mlp", (784,), hidden=(128,)), (784,), 10, 512,
         4096, 2.8, engine="exact-dense"),
    Case("logistic 784-10, exact dense", _built("logistic", (784,)), (784,), 10, 512, 4096, 4.0,
         engine="exact-dense"),
)  # fmt: skip


class Round:
    """A site's round of a plan with one other site, without the noise."""

    def __init__(self, case: Case, engine: EngineName) -> None:
        count = int(case.expected / float(case.rate))
        torch.manual_seed(1)
        model = case.make()
        side = coarsest(case.make(), case.shape)
        self.grid = USUAL_GRID if side is None else side.grid
        self.parameters = get_parameters(model)
        self.plan = DistributedPlan.model_validate({
            "sites": [{"name": name, "records": count} for name in ("a", "b")],
            "dimension": len(self.parameters), "rounds": 3, "clip_norm_l2": Decimal(1),
            "noise_multiplier": Decimal(1), "delta": Decimal("1e-5"), "custody": "authority",
            "scheme": "bfv", "sampling_rate": case.rate, "sensitivity_grid": self.grid,
        })  # fmt: skip
        untested = RecordsApart("tested", "2026-01-01", 1, 1, "cpu", "", "", engine)
        learner = make_learner(
            self.plan, "a", model=model, records=case.records(count),
            rule=ClientRule(physical_batch=case.batch, engine=engine), tested=untested,
        )  # fmt: skip
        self.trainer = learner._trainer  # type: ignore[attr-defined]
        self.batches = self.trainer.batches
        self.overhead = self.batches * case.batch / case.expected
        self._number = 0

    def run(self) -> None:
        """Sampling, slots, both passes, clipping and the sum."""
        self._number += 1
        draw = Draws(DeterministicRandomness(7), ("run", 1, self._number), "a", self.plan)
        mask = draw.mask(self.trainer.record_count, self.plan.sampling_rate)
        self.trainer.gradient_sum(self.parameters, mask, draw.slots())


class Plain:
    """Steps of stochastic gradient descent on one batch after another."""

    def __init__(self, case: Case, batches: int) -> None:
        torch.manual_seed(1)
        self._case, self._batches, self._model = case, batches, case.make()
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-3)
        self._records = case.records(case.batch * 4)

    def run(self) -> None:
        """As many steps as a round has batches."""
        for number in range(self._batches):
            start = number % 4 * self._case.batch
            x, y = self._records.gather(np.arange(start, start + self._case.batch))
            self._optimizer.zero_grad()
            functional.cross_entropy(self._model(x), y).backward()
            self._optimizer.step()


class Ghost:
    """Stock Opacus with ghost clipping, without noise, through as many steps."""

    def __init__(self, case: Case, batches: int) -> None:
        torch.manual_seed(1)
        self._case, self._batches = case, batches
        model = case.make().train()
        self._model = GradSampleModuleFastGradientClipping(
            model, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="mean"
        )
        self._optimizer = DPOptimizerFastGradientClipping(
            torch.optim.SGD(model.parameters(), lr=1e-3), noise_multiplier=0.0, max_grad_norm=1.0,
            expected_batch_size=case.batch, loss_reduction="mean",
        )  # fmt: skip
        self._loss = DPLossFastGradientClipping(
            self._model, self._optimizer, nn.CrossEntropyLoss(), loss_reduction="mean"
        )
        self._records = case.records(case.batch * 4)

    def run(self) -> None:
        """As many steps as a round has batches."""
        for number in range(self._batches):
            start = number % 4 * self._case.batch
            x, y = self._records.gather(np.arange(start, start + self._case.batch))
            self._optimizer.zero_grad()
            self._loss(self._model(x), y).backward()
            self._optimizer.step()


def processor_seconds(jobs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Medians of jobs that take turns, each run once beforehand."""
    for job in jobs.values():
        job()
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started = time.process_time()
            job()
            spent[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in spent.items()}


def _peak(name: str, way: str) -> tuple[float, float]:
    """MiB of a fresh process that trains one case in one way: its peak, and a round's part."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_measure, args=(name, way, answers))
    process.start()
    process.join()
    peak, before = answers.get()
    return peak, peak - before


def _measure(name: str, way: str, answers: Any) -> None:
    warnings.simplefilter("ignore")
    case = next(case for case in CASES if case.name == name)
    with deterministic_torch():
        job = Plain(case, 2) if way == "plain" else Round(case, case.engine)
        before = peak_mib()
        job.run()
    answers.put((peak_mib(), before))


def row_of(case: Case, rounds: int, *, slow: bool, memory: bool) -> dict[str, Any]:
    """One row of the table; `slow` also runs Opacus' hooks."""
    peaks = {}
    if memory:
        (ours, growth), (plain, plain_growth) = (_peak(case.name, w) for w in ("round", "plain"))
        peaks = {
            "peak_mib": ours, "plain_peak_mib": plain, "memory": ours / plain,
            "growth_mib": growth, "plain_growth_mib": plain_growth,
        }  # fmt: skip
    exact = Round(case, case.engine)
    k = exact.batches
    jobs: dict[str, Callable[[], None]] = {
        "plain": Plain(case, k).run,
        "exact": exact.run,
        "ghost": Ghost(case, k).run,
    }
    if slow:
        jobs["hooks"] = Round(case, "opacus").run
    found = processor_seconds(jobs, rounds)
    ratios = {name: found[name] / found["plain"] for name in found if name != "plain"}
    # Opacus' ghost clipping has no exact arithmetic to be held against.
    most = min(case.most, ratios["ghost"]) if case.engine == "exact" else case.most
    return {
        "model": case.name,
        "batch": case.batch,
        "batches": k,
        "grid": exact.grid,
        "plain_ms": 1000 * found["plain"] / k,
        "ratio": ratios["exact"],
        "most": case.most,
        "hooks": ratios.get("hooks"),
        "ghost": ratios["ghost"],
        "before": ratios.get("hooks"),
        "overhead": exact.overhead,
        **peaks,
        "holds": ratios["exact"] <= most
        and exact.overhead <= 1.2
        and peaks.get("memory", 0) <= case.most_memory,
    }


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print and write; 0 where every row holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--short", action="store_true", help="fewer rounds, without Opacus' hooks")
    parser.add_argument("--only", default="", help="models whose name has this in it")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(words)
    warnings.simplefilter("ignore")  # stock Opacus on full backward hooks
    rows = []
    with deterministic_torch():
        for case in CASES:
            if asked.only in case.name:
                rounds = min(3, asked.rounds) if asked.short else asked.rounds
                rows.append(row_of(case, rounds, slow=not asked.short, memory=not asked.short))
    columns = {
        "model": "model", "batch": "batch",
        "grid": lambda r: f"2^{r['grid'].bit_length() - 1}",
        "plain ms": lambda r: f"{r['plain_ms']:.2f}",
        "ratio": lambda r: f"{r['ratio']:.2f}", "allowed": lambda r: f"<= {r['most']}",
        "hooks": lambda r: "-" if r["hooks"] is None else f"{r['hooks']:.1f}",
        "ghost": lambda r: f"{r['ghost']:.2f}",
        "overhead": lambda r: f"{r['overhead']:.2f}",
        "peak MiB": lambda r: f"{r.get('peak_mib', 0):.0f}",
        "plain's": lambda r: f"{r.get('plain_peak_mib', 0):.0f}",
        "memory": lambda r: f"{r['memory']:.2f}" if "memory" in r else "-",
        "holds": lambda r: "yes" if r["holds"] else "NO",
    }  # fmt: skip
    show("A private round over plain steps of the same batches, processor time", columns, rows)
    write_json(asked.json, rows)
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
