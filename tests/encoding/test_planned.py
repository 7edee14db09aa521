"""Mask and rotation of a round: the same at every party, new in every round, all public."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privagg.encoding.planned import decode_sum, round_seed, transform_of, update_encoding
from privagg.errors import EncodingError
from privagg.privacy.plan import ClientPlan, Compression, Rounding
from privagg.privacy.randomness import DeterministicRandomness
from tests.privacy.test_compression import compressed
from tests.privacy.test_plan import client, distributed

PLACE = ("run", 3, 1)
MODEL = np.linspace(-1, 1, 40)
COINS = DeterministicRandomness(b"coins")

TERMS: list[dict[str, Any]] = [
    {},
    {"bits": 15, "rounding": "nearest"},
    {"bits": 15, "rounding": "stochastic"},
    {"rotation": True, "rounding": "stochastic"},
    {"kept": 13, "rounding": "stochastic"},
    {"kept": 13, "mask": "top-k", "rounding": "stochastic", "bits": 16, "rotation": True},
]


def test_without_compression_nothing_is_done_to_an_update() -> None:
    transform = transform_of(distributed(), PLACE, np.zeros(14))
    assert (transform.mask, transform.rotation) == (None, None)
    assert transform.apply(np.arange(14.0)).tolist() == list(range(14))


def test_every_fact_of_the_place_moves_the_seed_and_nothing_else_does() -> None:
    plan = compressed(127, rounding="stochastic", kept=13, rotation=True)
    seeds = [
        round_seed(plan, place)
        for place in (PLACE, ("run2", 3, 1), ("run", 4, 1), ("run", 3, 2), ("run", 31, 1))
    ]
    seeds.append(round_seed(plan.with_noise(plan.noise_multiplier * 2), PLACE))
    assert len(set(seeds)) == 6
    again = ClientPlan.model_validate({**plan.model_dump(), "scheme": "bfv", "custody": "sites"})
    assert again.digest != plan.digest
    assert round_seed(again, PLACE) == seeds[0]
    ours, theirs = (transform_of(p, PLACE, MODEL) for p in (plan, again))
    assert ours.mask is not None
    assert theirs.mask is not None
    assert ours.mask.indices.tolist() == theirs.mask.indices.tolist()
    assert ours.rotation == theirs.rotation
    another = transform_of(plan, ("run", 4, 1), MODEL)
    assert another.mask is not None
    assert another.mask.indices.tolist() != ours.mask.indices.tolist()


def test_a_mask_by_size_follows_the_released_model_alone() -> None:
    plan = compressed(127, rounding="stochastic", kept=10, mask="top-k")
    masks = [transform_of(plan, PLACE, model).mask for model in (MODEL, MODEL[::-1], MODEL.copy())]
    kept = [set(mask.indices.tolist()) for mask in masks if mask is not None]
    assert {0, 1, 38, 39} < kept[0]
    assert kept[0] == kept[2]
    with pytest.raises(EncodingError, match="finite"):
        transform_of(plan, PLACE, np.full(40, np.nan))


@pytest.mark.parametrize("terms", TERMS, ids=str)
@pytest.mark.parametrize("missing", [(), ("s0",), ("s1", "s4", "s7")])
def test_sums_with_dropped_sites_decode_to_the_mean_of_those_who_stayed(
    terms: dict[str, Any], missing: tuple[str, ...]
) -> None:
    plan = compressed(2**14, **terms)
    generator = np.random.default_rng(1)
    updates = {name: generator.normal(size=40) / 30 for name in plan.names}
    stayed = tuple(name for name in plan.names if name not in missing)
    total = sum(
        update_encoding(plan, name, PLACE, MODEL).encode(updates[name], COINS.stream(name))
        for name in stayed
    )
    found = decode_sum(plan, PLACE, MODEL, np.asarray(total), stayed)
    transform = transform_of(plan, PLACE, MODEL)
    mean = np.mean([updates[name] for name in stayed], axis=0)
    expected = transform.undo(transform.apply(mean))
    factor = 1.0 if transform.mask is None else float(transform.mask.factors.max())
    tolerance = factor * np.sqrt(transform.encoded_dimension) * float(plan.unit_per_grid)
    assert np.linalg.norm(found - expected) <= tolerance
    if transform.mask is None:
        assert np.allclose(expected, mean, atol=1e-12)


def test_few_bits_and_few_coordinates_are_right_on_average_over_public_rounds() -> None:
    """3,000 rounds of one update; every coordinate of the mean within 6 of its standard errors."""
    plan = compressed(127, rounding="stochastic", bits=8, kept=20)
    update = np.linspace(-0.05, 0.05, 40)
    draws = []
    for number in range(3000):
        place = ("run", number + 1, 1)
        encoding = update_encoding(plan, "s0", place, MODEL)
        total = encoding.encode(update, COINS.stream(number))
        draws.append(decode_sum(plan, place, MODEL, total, ("s0",)))
    errors = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - update) <= 6 * errors).all()


def test_the_encoder_enforces_the_plans_own_number() -> None:
    for terms in TERMS:
        plan = compressed(500, **terms)
        encoding = update_encoding(plan, "s0", PLACE, MODEL)
        assert encoding.sensitivity_grid == plan.sensitivity_grid
        assert encoding.transform.encoded_dimension == plan.upload_dimension
        encoded = encoding.encode(np.ones(40) * 1e6, COINS.stream("long"))
        assert int(np.abs(encoded).max()) <= plan.contribution_bound(plan.sites[0])
        assert sum(int(z) ** 2 for z in encoded) <= plan.sensitivity_grid**2


def test_a_record_is_a_sparser_record_under_the_same_bound() -> None:
    plan = distributed(compression=Compression(kept=5))
    mask = transform_of(plan, PLACE, np.zeros(14)).mask
    assert mask is not None
    rows = np.random.default_rng(2).integers(-9, 9, size=(50, 14))
    assert (np.square(mask.apply(rows.T).T).sum(axis=1) <= np.square(rows).sum(axis=1)).all()


def test_another_sum_than_the_rounds_is_refused() -> None:
    plan = client(compression=Compression(kept=5, rounding=Rounding.TRUNCATE))
    with pytest.raises(EncodingError, match=r"\(5,\), got \(14,\)"):
        decode_sum(plan, PLACE, np.zeros(14), np.zeros(14, dtype=np.int64), ("s0",))
