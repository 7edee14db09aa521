"""Write what privagg's functions answer: `python -m proofs.vectors`.

Every family below asks functions of privagg for edge cases that are named, and for others that are
drawn with a fixed seed, and writes questions and answers to `proofs/rocq/answers.json` and the same
to `Answers.v`. Check.v then holds them against what the theorems' definitions say. `--check` writes
nothing and fails where a function answers otherwise than the files say: the function has changed,
or the files were edited by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from flint import fmpz_poly

from privagg.encoding.grid import Grid, capped_square_sums
from privagg.encoding.packing import Packing
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.packed_sums import PackedLayout, PackedSum
from privagg.kernels.residues import BACKENDS, ResidueSum, pack_residues
from privagg.kernels.wide import FieldLayout
from privagg.privacy.certified.convolution import Losses, Resolution, power, product
from privagg.privacy.noise import IntegerGaussian
from privagg.privacy.plan import load_plan
from privagg.privacy.plan.sums import OpeningTerms, SumsPlan
from privagg.programs.sums import bounded
from privagg.secure.masked.streams import add_masks
from privagg.secure.paillier_packing import SlotPacking
from privagg.training.ghost.pieces import Factors, Left
from proofs import answers
from proofs.answers import Family
from proofs.bind import ROOT

_PLANS = "tests/vectors/plans.json"
_SEED = 20261128

Cases = Iterator[list[Any]]


def clamps(draw: Random) -> Cases:
    """At the bound, beyond it on either side, and far beyond it."""
    for bound in (1, 1000, 2**62):
        far = min(4 * bound, 2**63 - 1)
        edges = [0, bound, -bound, bound - 1, 1 - bound, far, -far]
        edges += [bound + 1, -bound - 1] + [draw.randint(-far, far) for _ in range(4)]
        grid = Grid(1.0, 2, contribution_bound=bound)
        yield [bound, edges, grid.clamp(np.array(edges, dtype=np.int64)).tolist()]


def square_sums(draw: Random) -> Cases:
    """Rows above and below the limit, at it, one beyond; of an odd and even number of columns."""
    for columns in (1, 2, 3, 5, 8, 13):
        for limit in (2, 1000, 2**31 - 1, 2**31):
            small = max(1, int(limit / columns**0.5))
            for size in (limit, small):
                row = [draw.randint(-size, size) for _ in range(columns)]
                yield [limit, row, _square_sum(row, limit)]
        for last in (0, 1):
            row = [1000, *[0] * (columns - 2), last] if columns > 1 else [1000]
            yield [1000, row, _square_sum(row, 1000)]
    # All at the limit: every partial sum is cut.
    yield [2**31, [2**31] * 9, _square_sum([2**31] * 9, 2**31)]


def _square_sum(row: list[int], limit: int) -> int:
    return int(capped_square_sums(np.array([row], dtype=np.int64), limit**2)[0])


def quantised(draw: Random) -> Cases:
    """Hostile floats, and rows whose float norm is S to the last bit but whose integers' is not."""
    hostile = [
        [1e308, -1e308, 1.0],
        [5e-324, 0.1, -0.1],
        [float("nan"), 1.0, 2.0],
        [float("inf"), 0.0, 0.0],
        [3.0, 4.0, 12.0],
        [0.6, 0.8, 1e-17],
        [1.0, 1.0, 1.0],
        [draw.gauss(0, 1), draw.gauss(0, 1), draw.gauss(0, 1)],
    ]
    for limit in (2, 37, 2**20, 2**31):
        for row in Grid(1.0, limit).quantise_records(np.array(hostile)).tolist():
            yield [limit, row]
    side = 2**31
    for row in ([side, 1.0], [side - 1, 65535.0], [side, 1, 1], [side - 1, 65536.0, 0.5]):
        yield [side, Grid(float(side), side).quantise_update(np.array(row, dtype=float)).tolist()]


def bounded_rows(draw: Random) -> Cases:
    """Rows within S, too long for a shard alone, and far beyond S; votes that are negative."""
    for shards in (None, 3):
        for largest, limit, length in ((4, 9, 4), (100, 150, 7), (2**20, 2**24, 5)):
            terms = OpeningTerms(
                length=length,
                sensitivity_grid=limit,
                largest_grid=largest,
                noise_multiplier=Decimal(20),
                shards=shards,
            )
            rows = [[draw.randint(-2 * largest, 2 * largest) for _ in range(length)]]
            rows += [[largest] * length, [-largest] * length, [limit, *[0] * (length - 1)]]
            found = bounded(np.array(rows, dtype=np.int64), len(rows), terms).tolist()
            for row, answer in zip(rows, found, strict=True):
                yield [2 if shards else 1, terms.least_grid, largest, limit, row, answer]


def words(draw: Random) -> Cases:
    """Values that share a word: drawn, and sums at both ends of their range."""
    for per_word, bound in ((2, 1000), (3, 70000), (5, 300)):
        size = bound // 4
        packing = Packing(per_word, size, bound, addends=4, per_word=per_word)
        drawn = [[draw.randint(-size, size) for _ in range(per_word)] for _ in range(4)]
        for uploads in (drawn, [[size] * per_word] * 4, [[-size] * per_word] * 4):
            word = sum(packing.pack(np.array(upload)) for upload in uploads)
            values = packing.unpack(np.asarray(word)).tolist()
            yield [bound, uploads, int(word[0]), values, packing.word_sum_bound]


def slots(draw: Random) -> Cases:
    """Slots of Paillier plaintexts, of widths that divide a word and that do not, up to 64 bits."""
    for width, count in ((8, 5), (13, 7), (33, 4), (64, 3)):
        packing, half = SlotPacking(count, width, count), 1 << (width - 1)
        size = min(half // 4, 2**62)
        drawn = [[draw.randint(-size, size) for _ in range(count)] for _ in range(3)]
        edges = [[half - size, *[0] * (count - 1)], [size - 1, *[-1] * (count - 1)]]
        for uploads in (drawn, edges, [[-half // 2] * count] * 2):
            packed = sum(packing.pack(np.array(upload, dtype=np.int64))[0] for upload in uploads)
            yield [width, uploads, packed, packing.unpack([packed]).tolist()]


def payloads(draw: Random) -> Cases:
    """Packed integers of masked sums, on both backends; a sum at both ends of its field."""
    for backend in BACKENDS:
        for width, count in ((1, 9), (17, 5), (32, 4), (63, 3)):
            layout, half = PackedLayout(count, width), 1 << (width - 1)
            size = half // 3
            drawn = [[draw.randint(-size, size) for _ in range(count)] for _ in range(3)]
            for uploads in (drawn, [[-half] * count], [[half - 1] * count]):
                summed = PackedSum(layout, backend)
                arrays = [np.array(upload, dtype=np.int64) for upload in uploads]
                summed.add([layout.to_bytes(layout.pack(a, backend), backend) for a in arrays])
                payload = summed.to_bytes()
                values = layout.unpack(payload, backend).tolist()
                yield [width, uploads, int.from_bytes(payload, "little"), values]


def fields(draw: Random) -> Cases:
    """Fields of BFV coefficients, of a word and of several, on both backends; sums at both ends."""
    for backend in BACKENDS:
        for count, width, shift in ((1, 1, 0), (1, 63, 2), (3, 20, 2), (5, 33, 2), (4, 63, 7)):
            layout, half = FieldLayout(count, width, shift), 1 << (width - 1)
            size = half // 3
            drawn = [[draw.randint(-size, size) for _ in range(count)] for _ in range(3)]
            for uploads in (drawn, [[-half] * count], [[half - 1] * count], [[-size] * count] * 2):
                rows = [layout.pack(np.array(each), 1, backend)[0].tolist() for each in uploads]
                summed = sum(_from_words(row) for row in rows) % 2**layout.bits
                wide = [summed >> 64 * k & 2**64 - 1 for k in range(layout.words)]
                opened = layout.unpack(
                    np.array([wide], dtype=np.uint64), count, len(uploads), backend
                )
                yield [width, shift, uploads, summed, opened.tolist()]


def _from_words(row: list[int]) -> int:
    return sum(word << 64 * k for k, word in enumerate(row))


def masks(draw: Random) -> Cases:
    """Payloads with masks added and taken off; a mask is its seed's stream as an integer."""
    for width, count in ((17, 5), (32, 4), (63, 3)):
        layout, half = PackedLayout(count, width), 1 << (width - 1)
        signs = [1, 1, -1, -1]
        seeds = [draw.randbytes(32) for _ in signs]
        streams = [_masked(layout, [0] * count, [(seed, 1)]) for seed in seeds]
        values = [draw.randint(-half, half - 1) for _ in range(count)]
        masked = _masked(layout, values, list(zip(seeds, signs, strict=True)))
        yield [width, values, streams, signs, masked]


def _masked(layout: PackedLayout, values: list[int], added: list[tuple[bytes, int]]) -> int:
    lanes = layout.pack(np.array(values, dtype=np.int64))
    add_masks(lanes, added)
    return int.from_bytes(layout.to_bytes(lanes), "little")


def limbs(draw: Random) -> Cases:
    """One value over several words: drawn, and at both ends of what an upload may be."""
    for count, bits, size in ((2, 20, 2**38), (3, 16, 2**45), (4, 15, 2**59)):
        packing = Packing(1, size, 4 * size - 4, addends=4, limbs=count, limb_bits=bits)
        for values in ([draw.randint(-size, size) for _ in range(4)], [size - 1] * 4, [-size] * 3):
            summed = sum(packing.pack(np.array([value])) for value in values)
            joined = int(packing.unpack(np.asarray(summed))[0])
            yield [bits, count, values, np.asarray(summed).tolist(), joined]


def residue_sums(draw: Random) -> Cases:
    """Numbers of payloads around those after which a word is reduced, on both backends."""
    for backend in BACKENDS:
        for modulus in (2, 3, 1032193, 2**59 + 21, 2**60 - 93):
            layout = ResidueLayout((modulus,), (8,))
            for count in (1, 14, 15, 16, 17, 40):
                rows = [
                    [modulus - 1, *(draw.randrange(modulus) for _ in range(7))]
                    for _ in range(count)
                ]
                summed = ResidueSum(layout, backend)
                summed.add([pack_residues(layout, np.array(row, np.uint64)) for row in rows])
                found = summed.residues().tolist()
                for column in (0, 5):
                    yield [modulus, [row[column] for row in rows], found[column]]


def factored(draw: Random) -> Cases:
    """Norms of gradients that are never formed, at one position and at several."""
    for positions, inputs, outputs in ((1, 4, 3), (1, 1, 1), (3, 4, 2), (6, 2, 3)):
        for size in (0.0, 1.0, 300.0):
            a, g = (
                torch.tensor([[[draw.gauss(0, 1) * by for _ in range(width)]
                               for _ in range(positions)]])
                for width, by in ((inputs, 1.0), (outputs, size))
            )  # fmt: skip
            weight = torch.nn.Parameter(torch.zeros(outputs, inputs))
            piece = Factors(weight, Left(a, 1000), g)
            piece.quantise(torch.tensor([1.0], dtype=torch.float64))
            integers = [int(x) for x in piece.integers()[0].tolist()]
            cut = positions * inputs
            yield [
                _rows(integers[:cut], inputs),
                _rows(integers[cut:], outputs),
                int(piece.squares()[0]),
            ]


def _rows(values: list[int], width: int) -> list[list[int]]:
    return [values[start : start + width] for start in range(0, len(values), width)]


def noise_bounds(_: Random) -> Cases:
    """The largest value of one share, of a table and of compositions of tables."""
    for stddev in (Fraction(16), Fraction(100, 3), Fraction(1024), Fraction(1025), Fraction(2**40)):
        noise = IntegerGaussian(stddev)
        parts = noise.composition
        base = parts.base_stddev
        yield [base.numerator, base.denominator, parts.radix, parts.levels, noise.bound]


def record_plans(_: Random) -> Cases:
    """Distributed plans: sampling rate, S, records and weights, noise, addends, both bounds."""
    for plan in _plans("record-distributed"):
        rate = Fraction(plan.sampling_rate)
        sites = [[site.records, site.weight] for site in plan.sites]
        terms = [rate.numerator, rate.denominator, plan.sensitivity_grid, sites]
        yield [*terms, _noise(plan), plan.addends, plan.upload_bound, plan.sum_bound]


def client_plans(_: Random) -> Cases:
    """Client plans: the clamp of b bits (or S), S, weights, noise, addends, both bounds."""
    for plan in _plans("client"):
        clamp = plan.compression.largest_coordinate if plan.compression else None
        limit = plan.sensitivity_grid
        terms = [limit if clamp is None else clamp, limit, [site.weight for site in plan.sites]]
        yield [*terms, _noise(plan), plan.addends, plan.upload_bound, plan.sum_bound]


def local_plans(_: Random) -> Cases:
    """Local plans: levels of an update, weights, both bounds."""
    for plan in _plans("record-local"):
        weights = [site.weight for site in plan.sites]
        yield [plan.update_levels, weights, plan.upload_bound, plan.sum_bound]


def sums_plans(_: Random) -> Cases:
    """Plans of sums: of each round L, the noise and how many addends each site has; both bounds."""
    sites = [
        {"name": name, "dataset": name, "records": records, "weight": 1}
        for name, records in (("east", 100), ("west", 7), ("north", 2500))
    ]
    openings = [
        {"length": 4, "sensitivity_grid": 9, "largest_grid": 3, "noise_multiplier": "20"},
        {"length": 4, "sensitivity_grid": 900, "largest_grid": 30, "noise_multiplier": "2.5"},
        {
            "length": 2,
            "sensitivity_grid": 90,
            "largest_grid": 8,
            "noise_multiplier": "3",
            "shards": 40,
        },
    ]
    for chosen in (openings[:1], openings[1:2], openings[2:], openings):
        plan = SumsPlan.model_validate(
            {
                "sites": sites,
                "delta": "1e-6",
                "custody": "authority",
                "scheme": "bfv",
                "openings": chosen,
            }
        )
        rounds = [
            [
                terms.largest_grid,
                plan.in_round(number).noise_bound,
                *((terms.shards or site.records) for site in plan.sites),
            ]
            for number, terms in enumerate(plan.openings, 1)
        ]
        yield [rounds, plan.addends, plan.upload_bound, plan.sum_bound]


def grid_products(draw: Random) -> Cases:
    """Losses of two rounds together: trimmed or not, with and without an infinite loss."""
    for negligible, infinite in ((1, 0), (6, 900), (12, 3), (20, 0)):
        resolution = Resolution(Fraction(1), mass_bits=20, negligible_bits=negligible)
        one, two = (_losses(draw, start, infinite) for start in (-3, 2))
        answer = _told(product(one, two, resolution))
        yield [20, resolution.negligible, *_told(one), *_told(two), *answer]


def grid_powers(draw: Random) -> Cases:
    """Losses of equal rounds together, as often as takes every path of the squaring."""
    resolution = Resolution(Fraction(1), mass_bits=30, negligible_bits=25)
    for times in (1, 2, 3, 4, 6, 7, 11):
        one = _losses(draw, -1, 17, of=2**30)
        answer = _told(power(one, times, resolution))
        yield [30, resolution.negligible, *_told(one), times, *answer]


def _losses(draw: Random, start: int, infinite: int, of: int = 2**20) -> Losses:
    """Masses that fall off towards both ends, so that there is something to trim."""
    masses = [of >> 4 * abs(k - 2) for k in range(6)]
    return Losses(start, fmpz_poly([draw.randint(m // 2 + 1, m + 1) for m in masses]), infinite)


def _told(losses: Losses) -> list[Any]:
    return [losses.start, losses.infinite, [int(mass) for mass in losses.masses.coeffs()]]


def _plans(mode: str) -> list[Any]:
    frozen = json.loads((ROOT / _PLANS).read_text(encoding="utf-8"))["plans"]
    return [load_plan(each["plan"]) for each in frozen.values() if each["plan"]["mode"] == mode]


def _noise(plan: Any) -> int:
    return plan.noise.bound if plan.noise else 0


_GRID, _PACKED = "privagg.encoding.grid", "privagg.kernels.packed_sums"
_PLAN = "privagg.privacy.plan"
_ROWS = "list (list Z)"
_LOSSES = "Z * Z * list Z"
_CONVOLUTION = "privagg.privacy.certified.convolution"

FAMILIES: tuple[tuple[Callable[[Random], Cases], str, tuple[str, ...]], ...] = (
    (clamps, "Z * list Z * list Z", (f"{_GRID}:Grid.clamp",)),
    (square_sums, "Z * list Z * Z", (f"{_GRID}:capped_square_sums",)),
    (quantised, "Z * list Z", (f"{_GRID}:Grid.quantise_records",)),
    (bounded_rows, "Z * Z * Z * Z * list Z * list Z", ("privagg.programs.sums:bounded",)),
    (words, f"Z * {_ROWS} * Z * list Z * Z", ("privagg.encoding.packing:Packing",)),
    (slots, f"Z * {_ROWS} * Z * list Z", ("privagg.secure.paillier_packing:SlotPacking",)),
    (payloads, f"Z * {_ROWS} * Z * list Z", (f"{_PACKED}:PackedLayout",)),
    (fields, f"Z * Z * {_ROWS} * Z * list Z", ("privagg.kernels.wide:FieldLayout",)),
    (masks, "Z * list Z * list Z * list Z * Z", ("privagg.secure.masked.streams:_add_part",)),
    (limbs, "Z * Z * list Z * list Z * Z", ("privagg.encoding.packing:Packing",)),
    (residue_sums, "Z * list Z * Z", ("privagg.kernels.residues:ResidueSum",)),
    (factored, f"{_ROWS} * {_ROWS} * Z", ("privagg.training.ghost.pieces:Factors",)),
    (noise_bounds, "Z * Z * Z * Z * Z", ("privagg.privacy.noise:Composition.bound",)),
    (
        record_plans,
        f"Z * Z * Z * {_ROWS} * Z * Z * Z * Z",
        (f"{_PLAN}.record:RecordPlan.contribution_bound", f"{_PLAN}.sharing:SharedNoisePlan"),
    ),
    (
        client_plans,
        "Z * Z * list Z * Z * Z * Z * Z",
        (f"{_PLAN}.client:ClientPlan.contribution_bound", f"{_PLAN}.sharing:SharedNoisePlan"),
    ),
    (local_plans, "Z * list Z * Z * Z", (f"{_PLAN}.local:LocalPlan",)),
    (sums_plans, f"{_ROWS} * Z * Z * Z", (f"{_PLAN}.sums:SumsPlan",)),
    (grid_products, f"Z * Z * {_LOSSES} * {_LOSSES} * {_LOSSES}", (f"{_CONVOLUTION}:product",)),
    (grid_powers, f"Z * Z * {_LOSSES} * Z * {_LOSSES}", (f"{_CONVOLUTION}:power",)),
)


def asked() -> dict[str, Family]:
    """Every family, answered now."""
    return {
        ask.__name__: Family(list(functions), kind, list(ask(Random(f"{_SEED} {ask.__name__}"))))
        for ask, kind, functions in FAMILIES
    }


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write the files, or with `--check` compare. Exit status."""
    parser = argparse.ArgumentParser(prog="python -m proofs.vectors", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    options = parser.parse_args(arguments)
    now = asked()
    if not options.check:
        (root / answers.JSON_FILE).write_text(answers.to_json(now), encoding="utf-8")
        (root / answers.ROCQ_FILE).write_text(answers.to_rocq(now), encoding="utf-8")
        return 0
    known = answers.read(root)
    found = [
        f"{name}: privagg answers otherwise than {answers.JSON_FILE} says; if that is meant, run "
        "python -m proofs.vectors"
        for name in now.keys() | known.keys()
        if now.get(name) != known.get(name)
    ]
    for problem in sorted(found + answers.problems(root)):
        print(f"proofs/rocq: {problem}", file=sys.stderr)
    return int(bool(found or answers.problems(root)))


if __name__ == "__main__":
    sys.exit(main())
