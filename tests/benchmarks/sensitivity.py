"""How far one record moves a site's sum: the largest that an adversarial search finds.

    python -m tests.benchmarks.sensitivity --json out/sensitivity.json [--short] [--engines exact]

For every engine, built-in model and kind of layer that training accepts, at three physical batches.
The attacker chooses parameters, all other records and the added one. A record is looked for whose
gradient differs most between two places of a batch; where its inputs enter a linear layer as they
are, each is then tuned to the last bit, so that the difference turns over an integer of the grid.
Half of the data set are its copies; the added records are wild. Common records keep their slots,
as the proof's coupling has it. Integers throughout: a row holds only if the squares add up to at
most S^2.

In the same run the same search goes against rows by rank and unchecked layouts (`rank_rows`), where
it has to find what is known to be there. The exit code is 1 where a row does not hold, or a control
is not found.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.errors import ModelError
from privagg.training.data import TensorRecords
from privagg.training.declared import EngineName, ModelSpec
from privagg.training.dpsgd import ENGINES, DpSgd
from privagg.training.models import build_model, require_separable, set_parameters
from privagg.training.rehearsal import require_records_apart
from privagg.training.torch_state import deterministic_torch
from tests.benchmarks.rank_rows import rank_sum
from tests.benchmarks.tables import show, write_json
from tests.zoo import ACCEPTED, REFUSED, VOCABULARY

S = 2**16
GRID = Grid(clip_norm_l2=2, sensitivity_grid=S)
BATCHES = (7, 64, 199)
CONTROLLED = 64
"""The batch of the controls, and of the largest data sets."""
DRAWS = 20

FULL_SUMS = 2
"""Added records for which the first draw adds up every slot; the zero record and a wild one."""

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Subject:
    """A model under attack, and the records it takes."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int = 2
    tokens: bool = False
    dense: bool = False
    """Inputs enter a linear layer as they are, so each can be tuned by itself."""

    def drawn(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        """Ordinary inputs, float32 `(count, *shape)`."""
        if self.tokens:
            values = rng.integers(0, VOCABULARY, (count, *self.shape))
        else:
            values = 0.3 * rng.standard_normal((count, *self.shape))
        return torch.from_numpy(values.astype(np.float32))

    def added(self, rng: np.random.Generator) -> Iterator[torch.Tensor]:
        """Records that an attacker would add, `(1, *shape)` each; the zero record first."""
        yield torch.zeros(1, *self.shape)
        if self.tokens:
            yield torch.full((1, *self.shape), float(VOCABULARY))  # an embedding has no such row
            yield from (self.drawn(rng, 1) for _ in range(3))
            return
        signs = torch.sign(self.drawn(rng, 1))
        for size in (300.0, 1.0, 3e38, 1e-41, math.inf, math.nan):
            yield size * signs
        yield self.drawn(rng, 1)


def built_in(kind: str, shape: tuple[int, ...], classes: int, **facts: Any) -> Subject:
    """One of the models that a configuration names."""
    spec = ModelSpec(kind=kind, **facts)
    name = f"{kind} {math.prod(shape)} to {classes}"
    return Subject(
        name, lambda: build_model(spec, shape, classes, seed=1), shape, classes, dense=kind != "cnn"
    )


def subjects() -> list[Subject]:
    """Every built-in model, and every layer kind that `check` accepts."""
    own = [
        built_in("logistic", (30,), 10),
        built_in("logistic", (13,), 2),
        built_in("mlp", (30,), 10, hidden=(16,)),
        built_in("mlp", (30,), 2, hidden=(24, 8)),
        built_in("cnn", (1, 8, 8), 10),
        built_in("cnn", (3, 8, 8), 2, channels=(4, 8)),
    ]
    layers = [
        Subject(name, case.make, case.shape, tokens=case.tokens, dense=name.startswith("Linear+"))
        for name, case in ACCEPTED.items()
    ]
    return own + layers


# --- the search ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What the search chose: parameters, a record that minds its place, and those two places."""

    parameters: np.ndarray
    x: torch.Tensor
    places: tuple[int, int]
    units: int
    """Grid units by which the record's integers differ between the places, all together."""


def trainer_of(
    subject: Subject,
    rows: int,
    records: TensorRecords | None = None,
    batches: int = 1,
    engine: EngineName = "opacus",
) -> DpSgd:
    """The engine's own trainer of the model, over these records or none."""
    torch.manual_seed(1)
    if records is None:
        records = TensorRecords.of(np.zeros((0, *subject.shape)), np.zeros(0))
    return DpSgd(subject.make(), records, GRID, physical_batch=rows, batches=batches, engine=engine)


def find_target(subject: Subject, trainer: DpSgd, rng: np.random.Generator, tries: int) -> Target:
    """Random parameters and records; the one whose gradient minds its place most, then tuned."""
    rows = trainer.physical_batch
    best: tuple[float, np.ndarray, torch.Tensor, tuple[int, int]] | None = None
    free = _free_inputs(subject)
    for _ in range(tries):
        parameters = _drawn_parameters(trainer, rng, free)
        x = subject.drawn(rng, 1)
        if subject.dense:
            x = x.reshape(1, -1) * 0.27
            x[:, free] = 0.01
            x = x.reshape(1, *subject.shape)
        set_parameters(trainer.model, parameters)
        found = _in_every_place(trainer, x)
        looked_at = found[:, _first_bias(trainer)] if subject.dense else found
        away, places = _widest(looked_at)
        if best is None or away > best[0]:
            best = (away, parameters, x, places)
    assert best is not None
    _, parameters, x, places = best
    set_parameters(trainer.model, parameters)
    if subject.dense:
        x = _tuned(trainer, x, free, places)
    integers = GRID.quantise_records(_in_every_place(trainer, x))
    units = int(np.abs(integers[places[0]] - integers[places[1] % rows]).sum())
    return Target(parameters, x, places, units)


def _free_inputs(subject: Subject) -> np.ndarray:
    """Inputs whose weights are zero, so that tuning them changes no other gradient."""
    width = math.prod(subject.shape)
    return np.arange(width - width * 17 // 30, width) if subject.dense else np.zeros(0, int)


def _drawn_parameters(trainer: DpSgd, rng: np.random.Generator, free: np.ndarray) -> np.ndarray:
    sizes, shapes = trainer.layout.sizes, trainer.layout.shapes
    parts = [rng.standard_normal(size) for size in sizes]
    if len(free):
        weights = 12 * parts[0].reshape(shapes[0])
        weights[:, free] = 0
        parts[0], parts[1] = weights.reshape(-1), 0 * parts[1]
    return np.concatenate(parts)


def _first_bias(trainer: DpSgd) -> slice:
    """Where the first layer's bias lies; its gradient is what multiplies every input."""
    start = trainer.layout.sizes[0]
    return slice(start, start + trainer.layout.sizes[1])


def _in_every_place(trainer: DpSgd, x: torch.Tensor) -> np.ndarray:
    """The record's gradient in each place of a batch of its copies, float32 `(rows, d)`."""
    rows = trainer.physical_batch
    copies = x.expand(rows, *x.shape[1:]).clone()
    return trainer.batch_gradients(copies, torch.zeros(rows, dtype=torch.int64))


def _widest(rows: np.ndarray) -> tuple[float, tuple[int, int]]:
    """The largest relative step between neighbouring places, of values that are worth tuning."""
    steps = np.abs(np.diff(rows, axis=0))
    size = np.abs(rows[1:])
    relative = np.divide(steps, size, out=np.zeros_like(steps), where=size > 0.02)
    if not relative.size:
        return 0.0, (0, 0)
    place = int(np.unravel_index(np.argmax(relative), relative.shape)[0])
    return float(relative.max()), (place, place + 1)


def _tuned(
    trainer: DpSgd, x: torch.Tensor, free: np.ndarray, places: tuple[int, int]
) -> torch.Tensor:
    """Sets every free input to where the products with the two gradients truncate differently."""
    found = _in_every_place(trainer, x)[:, _first_bias(trainer)]
    pair = np.abs(found[list(places)])
    column = int(np.argmax(np.abs(pair[0] - pair[1]) / np.maximum(pair[1], 0.02)))
    small, large = sorted(pair[:, column])
    tuned = x.clone().reshape(-1)
    tuned[free] = 0
    if small != large:
        for coordinate in free:
            tuned[coordinate] = _turning(small, large, float(GRID.scale))
    return tuned.reshape(x.shape)


def _turning(small: np.float32, large: np.float32, scale: float) -> float:
    """A float32 that takes `small` just below an integer of the grid, and `large` not."""
    for integer in range(int(0.02 * scale * small) + 1, int(0.25 * scale * small) + 3):
        value = np.float32(integer / scale / small)
        near = [value]
        for _ in range(8):
            near = [
                np.nextafter(near[0], np.float32(0)),
                *near,
                np.nextafter(near[-1], np.float32(9)),
            ]
        candidates = np.array(near, dtype=np.float32)
        below = np.floor((small * candidates).astype(np.float64) * scale)
        above = np.floor((large * candidates).astype(np.float64) * scale)
        turned = np.flatnonzero(above > below)
        if len(turned):
            return float(candidates[turned[0]])
    return 0.0


def data_set(subject: Subject, target: Target, count: int) -> TensorRecords:
    """Every second record a copy of the target, at its place's parity; the others zero."""
    x = torch.zeros(count, *subject.shape)
    x[target.places[0] :: 2] = target.x
    return TensorRecords(x, torch.zeros(count, dtype=torch.int64))


def squares(moved: Integers) -> int:
    """The squared length, in Python's integers."""
    return sum(value * value for value in moved.tolist())


# --- records in slots ----------------------------------------------------------------------------


def engines_of(subject: Subject, among: Sequence[EngineName]) -> list[EngineName]:
    """Which of these engines compute the model; exact arithmetic is for dense ones alone."""
    found: list[EngineName] = []
    for engine in among:
        with suppress(ModelError):
            trainer_of(subject, 8, engine=engine)
            found.append(engine)
    return found


def in_slots(
    subject: Subject, rows: int, count: int, draws: int, tries: int, engine: EngineName
) -> dict[str, Any]:
    """The largest move of the engine's sum, with common records in the same slots.

    The first draw of every case adds up all slots, with the added record and without. Later ones
    add up only the physical batch that the record is in: all others hold the same records.
    """
    rng = np.random.default_rng([rows, *subject.name.encode()])
    target = find_target(subject, trainer_of(subject, rows, engine=engine), rng, tries)
    added = torch.cat(list(subject.added(rng)))
    data = data_set(subject, target, count)
    records = TensorRecords(
        torch.cat([data.x, added]), torch.cat([data.y, torch.ones(len(added), dtype=torch.int64)])
    )
    batches = math.ceil(1.1 * (count + 1) / rows)
    whole = trainer_of(subject, rows, records, batches, engine)
    part = trainer_of(subject, rows, records, engine=engine)
    require_records_apart(whole)
    worst = 0
    for draw in range(draws):
        places = rng.permutation(batches * rows)[: count + 1]
        without = np.full(batches * rows, -1)
        without[places[:-1]] = np.arange(count)
        trainer = part if draw else whole
        slots = _batch_of(places[-1], rows) if draw else slice(None)
        for number in range(len(added) if draw else FULL_SUMS):
            with_it = without.copy()
            with_it[places[-1]] = count + number
            more, fewer = (
                trainer.slotted_sum(target.parameters, records_at[slots])
                for records_at in (with_it, without)
            )
            worst = max(worst, squares(more - fewer))
    return {
        "kind": "accepted",
        "model": subject.name,
        "engine": engine,
        "physical_batch": rows,
        "records": count,
        "slots": batches * rows,
        "draws": draws,
        "added_records": len(added),
        "units_between_places": target.units,
        "ratio": math.sqrt(worst) / S,
        "holds": worst <= S * S,
    }


def _batch_of(slot: int, rows: int) -> slice:
    first = int(slot) // rows * rows
    return slice(first, first + rows)


# --- what the search has to find where it is ------------------------------------------------------


def control(name: str, subject: Subject, count: int, tries: int, least: float) -> dict[str, Any]:
    """The same search against rows by rank: the added record comes first and shifts all others."""
    rows = CONTROLLED
    rng = np.random.default_rng(5)
    require_separable(subject.make(), subject.shape, subject.classes)  # all that was asked then
    trainer = trainer_of(subject, rows)
    target = find_target(subject, trainer, rng, tries)
    data = data_set(subject, target, count)
    before = rank_sum(trainer, GRID, data)
    worst = 0
    for x in subject.added(rng):
        more = TensorRecords(
            torch.cat([x, data.x]), torch.cat([torch.zeros(1, dtype=torch.int64), data.y])
        )
        worst = max(worst, squares(rank_sum(trainer, GRID, more) - before))
        if worst >= (least * S) ** 2:
            break
    ratio = math.sqrt(worst) / S
    return {
        "kind": "control",
        "model": name,
        "physical_batch": rows,
        "records": count,
        "units_between_places": target.units,
        "ratio": ratio,
        "least": least,
        "holds": ratio >= least,
    }


def controls(short: bool) -> list[dict[str, Any]]:
    """Rows by rank at 51,200 and 204,800 records; a model that sees time first."""
    logistic = built_in("logistic", (30,), 10)
    time_first = REFUSED["time first, numbers"]
    layout = Subject("time first", time_first.make, time_first.shape)
    rows = [control("rank rows, logistic", logistic, 51_200, 300, 1.5)]
    if not short:
        rows.append(control("rank rows, logistic", logistic, 204_800, 300, 6))
    rows.append(control("layout, time first", layout, 10_240, 30, 40))
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Search, print and write; 0 where every row holds and every control was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--short", action="store_true", help="a few cases, in seconds")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    arguments = parser.parse_args(words)
    cases = subjects()
    if arguments.short:
        cases = [case for case in cases if case.name in SHORT]
    with deterministic_torch():
        rows = controls(arguments.short) if CONTROLLED in arguments.batches else []
        for subject in cases:
            for batch in [CONTROLLED] if arguments.short else arguments.batches:
                count, draws, tries = (500, 3, 20) if arguments.short else (10_240, DRAWS, 100)
                for engine in engines_of(subject, arguments.engines):
                    rows.append(in_slots(subject, batch, count, draws, tries, engine))
        if CONTROLLED in arguments.batches and not arguments.short:
            logistic = cases[0]
            for count in (51_200, 204_800):
                rows += [
                    in_slots(logistic, CONTROLLED, count, DRAWS, 300, e)
                    for e in engines_of(logistic, arguments.engines)
                ]
    columns = {
        "model": "model", "engine": lambda row: row.get("engine", "opacus"),
        "batch": "physical_batch", "records": "records", "draws": "draws",
        "units between places": "units_between_places",
        "largest move / S": lambda row: f"{row['ratio']:.4f}",
        "expected": lambda row: f">= {row['least']}" if "least" in row else "<= 1",
        "holds": lambda row: "yes" if row["holds"] else "NO",
    }  # fmt: skip
    show("One record moves the sum by", columns, rows)
    write_json(arguments.json, rows)
    return 0 if all(row["holds"] for row in rows) else 1


SHORT = ("logistic 30 to 10", "cnn 64 to 10", "Embedding", "DPGRU")

if __name__ == "__main__":
    logging.getLogger("privagg").setLevel(logging.ERROR)  # of records that a model cannot take
    sys.exit(main())
