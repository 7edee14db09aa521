"""`[ask] program = "auto"`: what public facts choose, what is said of it, and how it is met."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from privagg import Federation
from privagg.config.asking import AskSetup
from privagg.config.schema import Config, parse_config
from privagg.errors import ConfigError
from tests.benchmarks.tabular import STUDIES
from tests.commands import call
from tests.run.test_scorecard_asking import CONFIG

AUTO = CONFIG.replace('program = "scorecard"', 'program = "auto"')
FEW = AUTO.replace("records = 3000", "records = 90").replace("records = 2000", "records = 60")


def read(text: str, **changes: Any) -> Config:
    values = tomllib.loads(text)
    values["ask"] |= changes
    return parse_config(values)


def chosen(config: Config) -> str | None:
    assert config.choice is not None
    return config.choice.program


def test_little_noise_takes_a_scorecard_and_much_leaves_the_table_to_training() -> None:
    assert chosen(read(AUTO)) == "scorecard"
    few = read(FEW)
    assert chosen(few) is None
    assert few.trains
    assert few.choice is not None
    assert "logistic model trained by gradients" in few.choice.reason
    assert chosen(read(FEW, epsilon=50)) == "scorecard"
    assert read(CONFIG).choice is None


def test_what_is_chosen_is_what_the_named_program_would_be() -> None:
    """The plan pins the scorecard by its own name, with the same openings and bins."""
    plans = [AskSetup.of(Federation.from_dict(tomllib.loads(text)).setup).plan
             for text in (AUTO, CONFIG)]  # fmt: skip
    assert plans[0].digest == plans[1].digest


def test_targets_that_no_scorecard_has_are_trained() -> None:
    values = tomllib.loads(AUTO)
    values["ask"]["settings"] = {}
    values["data"]["target"] = {"name": "late", "kind": "ordinal", "classes": ["a", "b", "c"]}
    config = parse_config(values)
    assert chosen(config) is None
    assert config.choice is not None
    assert "of kind 'ordinal'" in config.choice.reason


def test_settings_that_are_not_a_scorecards_are_refused_by_name() -> None:
    for text in (AUTO, FEW):
        with pytest.raises(ConfigError, match="trees"):
            read(text, settings={"trees": 4})


def test_check_says_what_was_chosen_and_ask_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text(FEW)
    told = call("check", "few.toml", "--no-data", where=tmp_path)
    assert told.code == 0
    text = " ".join(told.out.split())
    assert "training, by `privagg run`; nothing is asked" in text
    assert "above 0.15" in text
    refused = call("ask", "few.toml", where=tmp_path)
    assert refused.code != 0
    assert "Train it: `privagg run`" in " ".join(refused.err.split())
    (tmp_path / "many.toml").write_text(AUTO)
    text = " ".join(call("check", "many.toml", "--no-data", where=tmp_path).out.split())
    assert "scorecard of 8 openings" in text


@pytest.mark.parametrize(
    ("table", "epsilon", "program"),
    [
        ("credit", "0.1", "scorecard"), ("credit", "1", "scorecard"), ("adult", "0.1", "scorecard"),
        ("heart", "0.1", None), ("heart", "1", None), ("heart", "4", "scorecard"),
    ],
)  # fmt: skip
def test_tables_of_the_benchmark_follow_the_rule(
    table: str, epsilon: str, program: str | None
) -> None:
    """What `tests.benchmarks.tabular` measures under the name of auto."""
    study, values = STUDIES[table], tomllib.loads(AUTO)
    values["privacy"]["delta"], values["data"] = study.data and study.delta, study.data
    values["ask"] |= {"epsilon": epsilon, "settings": study.settings}
    values["sites"] = [
        {"name": name, "data": "x.csv", "records": count} for name, count in study.sites.items()
    ]
    assert chosen(parse_config(values)) == program


def test_a_program_is_not_tuned_and_the_refusal_says_what_to_do() -> None:
    values = tomllib.loads(AUTO)
    values["tuning"] = {"grid": {"ask.settings.bins": [4, 8]}}
    with pytest.raises(ConfigError, match=r"'ask.settings.bins' cannot be .*chosen by public fac"):
        parse_config(values)
    with pytest.raises(ConfigError, match=r"Searched are trainings: .*`privagg ask`"):
        Federation.from_dict(tomllib.loads(AUTO)).tune()
