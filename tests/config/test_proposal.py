"""What a file leaves out: proposed from public facts, alike on every machine, and pinned."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from privagg import Federation
from privagg.cli.planview import describe
from privagg.config.proposal import (
    FEW,
    FEW_RECORDS,
    TABLE,
    PublicFacts,
    Recipe,
    expected_square,
    propose,
    recipe_of,
)
from privagg.config.schema import Config, parse_config, tuning_candidates
from privagg.errors import ConfigError
from privagg.training.features import CategoricalFeature, NumericFeature
from tests.benchmarks.propose import RECORDS, Recipes, Table, _Training

FACTS = PublicFacts(
    epsilon=Decimal(1), delta=Decimal("1e-5"), records=24_000, largest_site=8_000, parameters=81,
    square=Decimal(14), sites=3, shares=2,
)  # fmt: skip


def values(**sections: dict[str, Any]) -> dict[str, Any]:
    base: dict[str, Any] = {
        "federation": {"name": "demo"},
        "privacy": {"epsilon": "1", "delta": "1e-5"},
        "training": {},
        "secure": {"scheme": "plaintext", "custody": "authority"},
        "data": {
            "features": [
                {"name": "age", "range": [18, 100]},
                {"name": "ward", "categories": ["a", "b", "c"]},
            ],
            "target": {"name": "sick", "positive": "== 1"},
        },
        "sites": [
            {"name": "north", "data": "north.csv", "records": 4000},
            {"name": "south", "data": "south.csv", "records": 2500},
        ],
    }
    return {**base, **{name: {**base.get(name, {}), **own} for name, own in sections.items()}}


def filled(config: Config) -> dict[str, str]:
    return {one.key: one.written for one in config.proposed}


def test_every_setting_that_is_left_out_is_filled_and_named() -> None:
    config = parse_config(values())
    assert set(filled(config)) == {
        "training.rounds", "training.sampling_rate", "privacy.clip_norm_l2", "training.optimizer",
        "training.model.centred", "training.physical_batch",
    }  # fmt: skip
    assert config.training.rounds == int(filled(config)["training.rounds"])
    assert config.training.sampling_rate == 1
    assert all(one.why for one in config.proposed)


def test_what_the_file_says_stays() -> None:
    own = {"model": {"kind": "logistic", "centred": False}, "optimizer": {"kind": "adam"}}
    config = parse_config(values(training=own, privacy={"clip_norm_l2": "3"}))
    assert config.privacy.clip_norm_l2 == 3
    assert config.training.optimizer.kind == "adam"
    assert not config.training.model.centred
    assert set(filled(config)) == {
        "training.rounds", "training.sampling_rate", "training.physical_batch",
    }  # fmt: skip


def test_a_file_with_rounds_is_left_as_it_is() -> None:
    config = parse_config(values(training={"rounds": 3}))
    assert config.proposed == ()
    assert (config.privacy.clip_norm_l2, config.training.optimizer.learning_rate) == (1, 1.0)
    assert "centred" not in config.training.model.model_dump()  # nor in the plans of before


def test_the_plan_is_that_of_the_same_settings_in_the_file() -> None:
    left_out = Federation.from_dict(values())
    said = left_out.config
    typed = values(
        privacy={"clip_norm_l2": str(said.privacy.clip_norm_l2)},
        training={
            "rounds": said.training.rounds,
            "sampling_rate": "1",
            "physical_batch": said.training.physical_batch,
            "model": {"kind": "logistic", "centred": said.training.model.centred},
            "optimizer": said.training.optimizer.model_dump(exclude_unset=True),
        },
    )
    assert Federation.from_dict(typed).plan.digest == left_out.plan.digest
    facts = describe(left_out.setup)
    assert {one["setting"] for one in facts["proposed"]} == set(filled(said))
    assert facts["colluders_cost"]["noise_times"] == pytest.approx(2**0.5, abs=1e-3)
    alone = values(privacy={"noise_multiplier": "1e3", "colluders": 0}, training={"rounds": 3})
    assert describe(Federation.from_dict(alone).setup)["colluders_cost"] is None


def test_a_search_varies_one_setting_and_keeps_what_is_proposed_for_the_others() -> None:
    grid = {"training.optimizer.learning_rate": [0.5, 0.25]}
    base = parse_config(values(tuning={"grid": grid}))
    for (_, found), rate in zip(tuning_candidates(base), (0.5, 0.25), strict=True):
        assert found.training.optimizer.learning_rate == rate
        assert found.training.optimizer.average_from == base.training.optimizer.average_from
        kept = (found.training.rounds, found.training.model, found.privacy.clip_norm_l2)
        assert kept == (base.training.rounds, base.training.model, base.privacy.clip_norm_l2)


def test_no_surrounding_arithmetic_moves_a_proposal() -> None:
    number = [NumericFeature(name="x", range=(0, 1))]
    expected, square = propose(FACTS), expected_square(number)
    with localcontext() as context:
        context.prec, context.rounding = 3, ROUND_UP
        assert propose(FACTS) == expected
        assert expected_square(number) == square


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"model": "mlp"}}, "the model 'logistic'"),
        ({"privacy": {"mode": "client", "colluders": 0}}, "record-distributed"),
        ({"privacy": {"noise_multiplier": "3"}}, "no privacy.noise_multiplier"),
        ({"compression": {"keep": "0.5"}}, "compression.keep = 1"),
        ({"training": {"rounds": 2, "model": {"centred": True}}}, "at least 3 rounds"),
        (
            {
                "training": {"rounds": 9, "model": {"centred": True}},
                "privacy": {"mode": "record-local", "colluders": 0},
            },
            "needs privacy.mode = 'record-distributed'",
        ),
        ({"training": {"rounds": 9, "model": {"kind": "mlp", "centred": True}}}, "centred"),
        ({"training": {"rounds": 9, "loss": "m:f", "model": {"centred": True}}}, "its own loss"),
        ({"training": {"loss": "m:f"}}, r"no training\.loss"),
    ],
)
def test_what_nothing_is_known_of_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(values(**sections))


@pytest.mark.parametrize("table", [TABLE, FEW])
def test_a_table_covers_every_level_once(table: tuple[Recipe, ...]) -> None:
    levels = [recipe.level for recipe in table]
    assert levels == sorted(set(levels))
    assert levels[-1] == Decimal("Infinity")
    assert all(recipe.rounds > 2 for recipe in table if recipe.centred)


def test_few_records_have_recipes_of_their_own() -> None:
    """As much noise is met with few records by going less far."""
    level = Decimal("0.02")
    assert recipe_of(level, FEW_RECORDS) in FEW
    assert recipe_of(level, FEW_RECORDS + 1) in TABLE
    loud = replace(FACTS, records=500, epsilon=Decimal("0.1"))
    rounds = next(each.value for each in propose(loud) if each.key == "training.rounds")
    assert rounds == recipe_of(loud.level, 500).rounds


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [1e-7, 1e-5, 1e-3])
def test_the_noise_it_reckons_with_is_about_the_gaussian_mechanisms(
    epsilon: float, delta: float
) -> None:
    """Balle and Wang's exact noise; rows of the table lie a factor of 3 apart or more."""

    def excess(sigma: float) -> float:
        other = np.exp(epsilon + norm.logcdf(-0.5 / sigma - epsilon * sigma))
        return float(norm.cdf(0.5 / sigma - epsilon * sigma) - other - delta)

    facts = PublicFacts(Decimal(str(epsilon)), Decimal(str(delta)), 1, 1, 1, Decimal(1), 1, 1)
    assert 0.65 < float(facts.level) / brentq(excess, 1e-2, 1e4) < 1.65


def test_the_expected_square_is_what_even_records_have() -> None:
    features = [
        NumericFeature(name="a", range=(-3, 5), scale=2.0),
        CategoricalFeature(name="b", categories=("x", "y", "z"), scale=0.5),
        CategoricalFeature(name="c", categories=("u", "v", "w", "t"), drop_first=True),
    ]
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(3)
    frame = pandas.DataFrame(
        {"a": rng.uniform(-3, 5, 40_000), "b": rng.choice(list("xyz"), 40_000),
         "c": rng.choice(list("uvwt"), 40_000)}
    )  # fmt: skip
    x = np.column_stack([feature.encode(frame[feature.name]) for feature in features])
    assert float(expected_square(features)) == pytest.approx(
        1 + (x**2).sum(axis=1).mean(), rel=0.01
    )


def test_the_search_trains_as_the_sites_do(tmp_path: Path) -> None:
    """Its gradient, without noise, beside that of the sites' own code at the same public state."""
    import torch

    from privagg.encoding.grid import Grid
    from privagg.training.data import TensorRecords
    from privagg.training.declared import ModelSpec
    from privagg.training.dpsgd import DpSgd
    from privagg.training.models import build_model

    rng = np.random.default_rng(5)
    x = rng.uniform([-0.5, -1, -1], [1.5, 1, 1], (2 * RECORDS, 3))
    y = (rng.random(2 * RECORDS) < 0.3).astype(np.float64)
    table = Table(np.column_stack([x, np.ones(2 * RECORDS)]), y, 2.0, RECORDS)
    clip = 0.3 * 2.0**0.5
    search = _Training(rng, table, Recipes(True, 9, np.array([50.0]), np.array([0.3])), 0.0)
    search.centre()
    search.weights = np.array([[0.5], [-1.0], [2.0], [-0.8]])
    records = TensorRecords(
        torch.from_numpy(x[:RECORDS].astype(np.float32)),
        torch.from_numpy(y[:RECORDS].astype(np.int64)),
    )
    steps = 2**20
    trainer = DpSgd(
        build_model(ModelSpec(centred=True), (3,), 2), records,
        Grid(Decimal(str(clip)), steps, RECORDS * steps), physical_batch=RECORDS,
    )  # fmt: skip
    state = np.concatenate([search.means[:, 0], search.weights[:, 0]]).astype(np.float64)
    total = trainer.slotted_sum(state, np.arange(RECORDS))
    assert not total[:3].any()
    np.testing.assert_allclose(
        total[3:] * clip / steps / RECORDS, search.gradient()[:, 0], atol=2e-6
    )
