"""Configuration files: exact numbers in, one clear message out."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from privagg import Federation
from privagg.config.data import ImageData
from privagg.config.schema import load_config, parse_config
from privagg.errors import ConfigError
from privagg.privacy.unit import Custody

GOOD = """
[federation]
name = "demo"

[privacy]
mode = "record-distributed"
epsilon = 1.1000000000000000000001
delta = 1e-5

[training]
model = "logistic"
rounds = 5
sampling_rate = 0.1

[training.optimizer]
kind = "adam"
learning_rate = 0.5

[secure]
scheme = "ckks"
custody = "authority"

[data]
target = { name = "sick", positive = "== 1" }

[[data.features]]
name = "age"
range = [18, 100]

[[data.features]]
name = "sex"
categories = ["f", "m"]

[[sites]]
name = "north"
data = "north.csv"
records = 100

[[sites]]
name = "south"
data = "south.parquet"
records = 50
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "my.toml"
    path.write_text(text)
    return path


def test_decimals_keep_every_digit(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.privacy.epsilon == Decimal("1.1000000000000000000001")
    assert config.privacy.delta == Decimal("0.00001")
    assert config.training.sampling_rate == Decimal("0.1")
    assert config.training.model.kind == "logistic"
    assert config.data.shape == (3,)
    assert config.data.target.outputs == 1
    assert config.privacy.budget == config.privacy.epsilon


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("rounds = 5", "rounds = 5\nround = 6", "training.round"),
        ('model = "logistic"\nrounds = 5', 'model = "mlp"', "training.rounds"),
        ("epsilon = 1.1000000000000000000001", 'epsilon = "lots"', "privacy.epsilon"),
        ("epsilon = 1.1000000000000000000001", "epsilon = -1", "privacy.epsilon"),
        ("delta = 1e-5", "delta = nan", "privacy.delta"),
        ('mode = "record-distributed"', 'mode = "magic"', "privacy.mode"),
        ('custody = "authority"', "", "secure.custody"),
        ("records = 50", "records = 0", "sites[south].records"),
        ('name = "south"', 'name = "../south"', "sites[#2].name"),
        ("range = [18, 100]", "range = [100, 18]", "age"),
        ('kind = "adam"', 'kind = "adamantium"', "training.optimizer.kind"),
        ("[federation]", "[federation", "not valid TOML"),
        ("[federation]", "[telemetry]\nsend = true\n\n[federation]", "telemetry"),
    ],
)
def test_one_clear_message(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sampling_rate", "sample_rate", "'training.sample_rate'; did you mean 'sampling_rate'?"),
        ("[secure]", "[secrue]", "'secrue'; did you mean 'secure'?"),
        ("range = [18", "rnge = [18", "'data.features[age].rnge'; did you mean 'range'?"),
        ("delta = 1e-5", "delta = 1e-5\nlearning_rate = 1", "belongs in [training.optimizer]"),
        ("delta = 1e-5", "delta = 1e-5\nzzz = 1", "'privacy.zzz'; remove it or correct"),
        ("range = [18, 100]", "", "'data.features[age].range' is missing"),
        ("range = [18, 100]", "range = [100, 18]", "'data.features[age]': range of 'age' must"),
        ('name = "south"', 'name = "Süd"', "letters (no umlauts), digits"),
        ("rounds = 5", 'rounds = "ten"', "'training.rounds': should be a whole number"),
        ("rounds = 5", "rounds = true", "rounds should be a number, not true or false"),
        (
            'kind = "adam"',
            'kind = "Adam"',
            "'yogi' or 'rmsprop' (got 'Adam'); did you mean 'adam'?",
        ),
        ('= "record-distributed"', '= "distributed"', "did you mean 'record-distributed'?"),
        ("[data]", '[data]\nkind = "tabel"', "(got 'tabel'); did you mean 'table'?"),
        ('name = "sex"', 'name = "age"', "features declared more than once: age"),
        ('positive = "== 1"', "positive = {}", "text, in quotation marks, or a whole number"),
    ],
)
def test_a_fault_is_told_in_the_words_of_the_file_and_with_what_was_meant(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, GOOD.replace(old, new, 1)))
    assert said in str(caught.value)


def test_a_byte_order_mark_and_capital_letters_of_a_scheme_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    text = GOOD.replace('"ckks"', '"CKKS"').replace("\n", "\r\n")
    path.write_text(text, encoding="utf-8-sig", newline="")
    config = load_config(path)
    assert config.secure.scheme == "ckks"
    assert config == load_config(write(tmp_path, GOOD))


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="privagg init"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError):
        load_config(tmp_path)


APP = """
[federation]
name = "app"

[privacy]
mode = "client"
epsilon = 8
delta = 1e-5

[training]
rounds = 5

[secure]
scheme = "bfv"
custody = "authority"

[data]
kind = "app"
parameters = 14

[[sites]]
name = "north"
records = 100

[[sites]]
name = "south"
records = 50
weight = 2
"""


def test_a_flower_apps_federation_has_a_plan_and_neither_data_nor_model(tmp_path: Path) -> None:
    federation = Federation.from_toml(write(tmp_path, APP))
    assert federation.plan.dimension == 14
    assert federation.plan.unit.value == "site"
    assert federation.plan.recipe["model"] == {"kind": "Flower app"}
    assert "learning_rate" not in federation.plan.canonical_json
    for refused in (federation.setup.fresh_model, federation.run):
        with pytest.raises(ConfigError, match="Flower"):
            refused()


@pytest.mark.parametrize(
    ("line", "instead", "expected"),
    [
        ('mode = "client"', 'mode = "record-local"', "no records"),
        ('kind = "app"', 'kind = "app"\nfeatures = []', "features"),
        ("rounds = 5", 'rounds = 5\nmodel = "logistic"', "training.model"),
        ("rounds = 5", "rounds = 5\nproximal_mu = 0.1", "training.proximal_mu"),
        ("parameters = 14", "parameters = 0", "parameters"),
    ],
)
def test_what_a_flower_app_has_in_its_own_place_is_not_configured_here(
    tmp_path: Path, line: str, instead: str, expected: str
) -> None:
    path = write(tmp_path, APP.replace(line, instead))
    with pytest.raises(ConfigError, match=expected):
        load_config(path)


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (
            {"kind": "images", "shape": [1, 2, 2], "value_range": [0, 1], "classes": 3},
            "7635a15e0009313d6750e16f454c81939cc71b953aa075671d08318eecd8fb0e",
        ),
        (
            {"kind": "dataset", "shape": [4], "classes": 3},
            "28812cdc59f24c3917b37024bb9cc8a072298a6fb71a62871951330e37310d36",
        ),
    ],
)
def test_plans_pin_where_labels_begin_only_where_they_do_not_begin_at_zero(
    data: dict[str, Any], digest: str
) -> None:
    def plan_digest(engine: str = "opacus", **more: int) -> str:
        labels = {"labels": "l.npy"} if data["kind"] == "images" else {}
        sites = [{"name": name, "data": "a.npy", "records": 50, **labels} for name in ("a", "b")]
        values = {
            "federation": {"name": "x"},
            "privacy": {"epsilon": "2", "delta": "1e-5"},
            "training": {"rounds": 2, "engine": engine},
            "secure": {"custody": "authority", "scheme": "plaintext"},
            "sites": sites,
            "data": {**data, **more},
        }
        return Federation(parse_config(values), base=Path()).plan.digest

    assert plan_digest() == plan_digest(first_label=0) == digest
    assert plan_digest(first_label=1) != digest
    assert plan_digest("exact") != digest  # what says nothing is of before there was a choice


def test_without_an_app_a_site_names_its_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs `data`"):
        load_config(write(tmp_path, GOOD.replace('data = "north.csv"\n', "")))


def test_images_may_weigh_their_classes_and_what_is_unsaid_stays_unsaid() -> None:
    facts = {"kind": "images", "shape": (1, 8, 8), "value_range": (0, 16), "classes": 3}
    plain = TypeAdapter(ImageData).validate_python(facts)
    assert set(plain.model_dump()) == set(facts)
    weighted = TypeAdapter(ImageData).validate_python({**facts, "class_weights": [1, 2, 3]})
    assert weighted.target.class_weights == (1, 2, 3)
    with pytest.raises(ValidationError, match="2 numbers for 3 classes"):
        TypeAdapter(ImageData).validate_python({**facts, "class_weights": [1, 2]})


def test_custody_follows_from_a_scheme_that_nobody_holds_a_key_of(tmp_path: Path) -> None:
    text = GOOD.replace('scheme = "ckks"', 'scheme = "masked"').replace('custody = "authority"', "")
    assert load_config(write(tmp_path, text)).secure.custody is Custody.EVERY_SITE
    assert load_config(write(tmp_path, text.replace("masked", "Masked"))).secure.scheme == "masked"


@pytest.mark.parametrize(
    ("scheme", "custody", "needed"),
    [("masked", "sites", "'every-site'"), ("bfv", "every-site", "'authority' or 'sites'")],
)
def test_a_custody_that_contradicts_the_scheme_is_refused(
    tmp_path: Path, scheme: str, custody: str, needed: str
) -> None:
    text = GOOD.replace("ckks", scheme).replace('"authority"', f'"{custody}"')
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=f"custody '{custody}' is not that of.*write {needed}"):
        load_config(path)
