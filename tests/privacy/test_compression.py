"""Compression in a plan: the stated sensitivity is the encoding's, in noise, event and capacity."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from math import isqrt, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from privagg.encoding.grid import Grid
from privagg.encoding.quantize import UpdateEncoding
from privagg.encoding.transforms import Transform
from privagg.privacy.plan import ClientPlan, Compression, LocalPlan, Rounding, load_plan
from privagg.privacy.plan.compression import norm_squared_bound, rounded_sensitivity
from tests.privacy.test_plan import client, distributed, sites

rules = st.sampled_from(Rounding)


def compressed(steps: int, *, dimension: int = 40, **terms: object) -> ClientPlan:
    """A client plan whose sensitivity is the one of its compression."""
    compression = Compression.model_validate(terms)
    n = compression.upload_dimension(dimension)
    sensitivity = rounded_sensitivity(compression.rounding, steps, n)
    return client(
        compression=compression,
        dimension=dimension,
        clip_norm_grid=steps,
        sensitivity_grid=sensitivity,
    )


@settings(max_examples=100, deadline=None)
@given(rules, st.integers(2, 2**30), st.integers(1, 10**9))
def test_the_bound_is_the_papers_rounded_up(rounding: Rounding, steps: int, n: int) -> None:
    """Kairouz, Liu & Steinke 2021, conditional randomised rounding, in floats."""
    found = norm_squared_bound(rounding, steps, n)
    expected = {
        Rounding.TRUNCATE: float(steps) ** 2,
        Rounding.NEAREST: min((steps + sqrt(n) / 2) ** 2, 4.0 * steps**2),
        Rounding.STOCHASTIC: min((steps + sqrt(n)) ** 2, steps**2 + n / 4 + steps + sqrt(n) / 2),
    }[rounding]
    assert expected * (1 - 1e-12) <= found <= expected * (1 + 1e-12) + 3
    sensitivity = rounded_sensitivity(rounding, steps, n)
    assert (sensitivity - 1) ** 2 < found <= sensitivity**2


def test_known_sensitivities() -> None:
    assert rounded_sensitivity(Rounding.TRUNCATE, 100, 10_000) == 100
    assert rounded_sensitivity(Rounding.NEAREST, 100, 10_000) == 150
    assert norm_squared_bound(Rounding.STOCHASTIC, 100, 10_000) == 10_000 + 2500 + 100 + 50
    assert rounded_sensitivity(Rounding.STOCHASTIC, 100, 1) == 101
    assert rounded_sensitivity(Rounding.NEAREST, 5, 10_000) == 10


class Coins:
    """A stream whose coins are given: True rounds away from zero, at every try alike."""

    def __init__(self, away: tuple[bool, ...]) -> None:
        self.words = np.array([0 if coin else 2**64 - 1 for coin in away], dtype=np.uint64)

    def bytes(self, n: int) -> bytes:
        return self.uint64(n // 8).astype("<u8").tobytes()

    def uint64(self, n: int) -> Any:
        return self.words[:n].copy()


def worst_updates(steps: int, n: int) -> Iterator[Any]:
    """Updates of full length (norm S grid units) whose coordinates lie just off the grid points.

    Just above k, rounding away from zero gains almost a whole unit; at k + 1/2 nearest gains most.
    """
    for corner in itertools.product(range(steps + 1), repeat=n):
        for off in (1e-9, 0.5, 0.999999):
            point = np.array(corner) + off
            norm = float(np.linalg.norm(point))
            yield point
            yield point * (steps / norm)


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize(("steps", "n"), [(2, 1), (3, 2), (4, 2), (2, 3), (5, 2)])
def test_no_neighbour_moves_the_sum_further_than_stated(
    rounding: Rounding, steps: int, n: int
) -> None:
    """Brute force over worst updates and every pattern of coins, sums with and without the unit."""
    encoding = UpdateEncoding(Grid(1.0, steps), Transform(n), rounding)
    others = np.arange(n, dtype=np.int64) - 7
    furthest = 0
    for update in worst_updates(steps, n):
        for away in itertools.product((False, True), repeat=n):
            encoded = encoding.encode(update / steps, Coins(away))
            apart = (others + encoded) - others
            furthest = max(furthest, sum(int(z) ** 2 for z in apart))
    assert furthest <= rounded_sensitivity(rounding, steps, n) ** 2
    assert furthest <= norm_squared_bound(rounding, steps, n)
    # The search is a real one: it finds the clip norm itself, and what rounding adds to it.
    assert furthest >= steps**2
    if rounding is not Rounding.TRUNCATE and n > 1:
        assert furthest > steps**2


def test_stating_the_clip_norm_for_a_rounded_update_is_refused() -> None:
    """The mistake that the plan exists to prevent: noise for S where rounding reaches beyond it."""
    terms = Compression(rounding=Rounding.STOCHASTIC, bits=8)
    for stated in (127, 128, 129):
        facts = {"compression": terms, "clip_norm_grid": 127, "sensitivity_grid": stated}
        if stated == rounded_sensitivity(Rounding.STOCHASTIC, 127, 14):
            assert client(**facts).sensitivity_grid == stated
        else:
            with pytest.raises(ValidationError, match=r"sensitivity_grid.*stochastic.*that is 128"):
                client(**facts)
    with pytest.raises(ValidationError, match="that is 65536"):
        client(clip_norm_grid=65536, sensitivity_grid=1000)


@settings(max_examples=60, deadline=None)
@given(
    rounding=rules,
    bits=st.one_of(st.none(), st.integers(6, 24)),
    rotation=st.booleans(),
    kept=st.one_of(st.none(), st.integers(2, 40)),
    steps=st.integers(64, 2**20),
)
def test_noise_event_and_room_follow_from_the_encoded_sensitivity(
    rounding: Rounding, bits: int | None, rotation: bool, kept: int | None, steps: int
) -> None:
    plan = compressed(steps, rounding=rounding, bits=bits, rotation=rotation, kept=kept)
    assert plan.noise is not None
    (term,) = plan.committed_event("s0").terms
    total = float(plan.noise.stddev_grid) * sqrt(plan.counted_shares)
    charged = float(term.mechanism.noise_multiplier)
    assert charged == pytest.approx(total / plan.sensitivity_grid, rel=1e-9)
    assert 1 <= charged <= 1 + 1e-3
    n = plan.upload_dimension
    assert n == (kept or 40) or (rotation and n & (n - 1) == 0)
    assert plan.sensitivity_grid**2 >= norm_squared_bound(rounding, steps, n)
    clamp = 2 ** (bits - 1) - 1 if bits else plan.sensitivity_grid
    largest = min(clamp, plan.sensitivity_grid)
    assert plan.upload_bound == largest + plan.noise.bound
    assert plan.sum_bound == plan.addends * plan.upload_bound


def test_heavy_clients_have_their_weight_in_the_rounded_sensitivity_too() -> None:
    plan = compressed(127, rounding=Rounding.STOCHASTIC, bits=8)
    weighted = client(
        **{**plan.model_dump(exclude={"mode"}), "sites": sites(*(5,) * 3, weights=(4, 1, 2))}
    )
    (heavy,), (light,) = (weighted.committed_event(name).terms for name in ("s0", "s1"))
    heavy_z, light_z = (float(t.mechanism.noise_multiplier) for t in (heavy, light))
    assert light_z == pytest.approx(4 * heavy_z, rel=1e-9)
    assert weighted.upload_bound - weighted.noise.bound == 4 * 127  # type: ignore[union-attr]
    assert weighted.sum_bound - 3 * weighted.noise.bound == 7 * 127  # type: ignore[union-attr]


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 31), st.integers(1, 10**7), st.booleans())
def test_the_finest_grid_leaves_room_for_its_bits(bits: int, d: int, rotation: bool) -> None:
    terms = Compression(bits=bits, rotation=rotation, rounding=Rounding.STOCHASTIC)
    steps, n = terms.finest_grid(d), terms.upload_dimension(d)
    largest = 2 ** (bits - 1) - 1
    if not rotation:
        assert steps == min(max(2, largest), 2**30)
    else:
        spread = sqrt(2 * np.log(2 * n / 1e-6) / n)
        assert steps <= max(2, largest, largest / spread)
        assert steps == 2**30 or steps >= min(2**30, int(largest / spread * 0.999))


def test_masks_project_and_leave_the_record_level_sensitivity_as_it_is() -> None:
    plan = distributed(compression={"kept": 5})
    assert (plan.upload_dimension, plan.sensitivity_grid) == (5, 2**16)
    assert plan.committed_event("s0").terms == distributed().committed_event("s0").terms


def test_an_absent_option_moves_no_digest() -> None:
    assert "compression" not in json.loads(client().canonical_json)
    plan = compressed(127, rounding=Rounding.STOCHASTIC, bits=8, rotation=True, kept=9)
    assert plan.digest != client().digest
    again = load_plan(json.loads(plan.canonical_json))
    assert again == plan
    assert again.digest == plan.digest
    assert plan.with_noise(Decimal(3)).compression == plan.compression


LOCAL = {**distributed().model_dump(exclude={"mode"}), "local_steps": 1, "update_bound": "1"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: distributed(compression={"bits": 8}), "record-distributed puts every record's"),
        (lambda: distributed(compression={"rotation": True}), "another sensitivity"),
        (lambda: distributed(compression={"rounding": "nearest"}), "another sensitivity"),
        (lambda: client(compression={"kept": 15}), "keeps 15 coordinates .* has 14"),
        (lambda: client(compression={"mask": "top-k"}), "top-k.* needs `keep`"),
        (lambda: client(compression={"mask": "top-k", "kept": 1}), "top-k.* needs `keep`"),
        (lambda: client(compression={"mask": "mine"}), "random-k"),
        (lambda: client(compression={"bits": 1}), "greater than or equal to 2"),
        (lambda: client(compression={"rounding": "up"}), "truncate"),
        (
            lambda: LocalPlan.model_validate(
                {**LOCAL, "compression": {"bits": 8, "rounding": "nearest"}}
            ),
            "update_levels 1048576 is not the 127",
        ),
        (
            lambda: LocalPlan.model_validate({**LOCAL, "compression": {"rounding": "truncate"}}),
            "towards zero",
        ),
    ],
)
def test_contradictions_are_refused_by_name(make: Any, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        make()


def test_the_root_is_rounded_up_where_floats_could_not_tell() -> None:
    steps, n = 2**30, 3
    exact = steps**2 + n + isqrt(4 * n * steps**2) + 1
    assert norm_squared_bound(Rounding.STOCHASTIC, steps, n) <= exact
    assert rounded_sensitivity(Rounding.TRUNCATE, steps, n) == steps
