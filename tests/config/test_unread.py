"""Every setting of a file, under every mode: it changes something, or it is refused by its name."""

from __future__ import annotations

import copy
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel

from privagg import Federation
from privagg.config.schema import Config
from privagg.config.sections import ContinuesSection
from privagg.errors import ConfigError, SchemeError
from privagg.privacy.randomness import DeterministicRandomness
from privagg.programs.optimizers import make_optimizer
from privagg.run.local import Run
from privagg.training.algorithms import AlgorithmSpec
from tests.approvals import approved
from tests.mistakes.test_mistakes import HERE

MODES = ("record-distributed", "record-local", "client")
SEED = b"every setting is read by somebody"

OTHERS: dict[str, Any] = {
    "privacy.mode": "record-local",
    "privacy.epsilon": "0.001",
    "privacy.delta": "1e-3",
    "privacy.budget_epsilon": "400",
    "privacy.noise_multiplier": "9",
    "privacy.clip_norm_l2": "0.5",
    "privacy.sensitivity_grid": 1024,
    "privacy.dropouts": 1,
    "privacy.colluders": 0,
    "privacy.unit": "person",
    "training.model.kind": "mlp",
    "training.model.hidden": [5],
    "training.model.channels": [4, 4],
    "training.model.options": {"width": 3},
    "training.model.centred": True,
    "training.rounds": 3,
    "training.sampling_rate": "0.25",
    "training.local_steps": 3,
    "training.local_learning_rate": 0.7,
    "training.local_batch_size": 2,
    "training.proximal_mu": 0.4,
    "training.update_bound": "0.01",
    "training.cohort_size": 2,
    "training.optimizer.kind": "adam",
    "training.optimizer.learning_rate": 0.3,
    "training.optimizer.momentum": 0.5,
    "training.optimizer.nesterov": True,
    "training.optimizer.beta1": 0.5,
    "training.optimizer.beta2": 0.5,
    "training.optimizer.tau": 0.5,
    "training.optimizer.initial_square": 0.5,
    "training.optimizer.bias_correction": True,
    "training.optimizer.weight_decay": 0.5,
    "training.optimizer.radius_l2": 0.001,
    "training.optimizer.schedule.kind": "cosine",
    "training.optimizer.schedule.decay": 0.5,
    "training.optimizer.schedule.rounds": 2,
    "training.optimizer.schedule.final": 0.5,
    "training.optimizer.average_from": 0,
    "secure.scheme": "bfv",
    "secure.custody": "sites",
    "secure.opener": "south",
    "secure.options": {"ring_degree": 8192},
    "compression.bits": 9,
    "compression.rounding": "nearest",
    "compression.rotation": True,
    "compression.keep": "0.7",
    "compression.mask": "top-k",
}
ELSEWHERE = {
    "federation.name": "names runs, reports and cards",
    "federation.output": "where everything goes",
    "federation.seed": "initial parameters, which are all zero in a logistic model; see below",
    "secure.strict": "what the key holder does before it opens: tests/attacks/test_spoiled_sums.py",
    "secure.security_bits": "a lowest level that is refused below: tests/secure",
    "training.physical_batch": "rows in memory at once; see below",
    "training.engine": "roundings of a grid unit: tests/training/test_ghost.py",
    "training.model.trainable": "names of parameters of a factory: tests/run/test_frozen_base.py",
    **{
        f"training.algorithm.{name}": "what a site computes: tests/programs/test_algorithms.py"
        for name in AlgorithmSpec.model_fields
    },
    **{
        f"training.continues.{name}": "the model of an earlier run: tests/run/test_rosters.py"
        for name in ContinuesSection.model_fields
    },
    "training.loss": "code, under the owners' approval: tests/run/test_targets.py",
    "training.retries": "attempts after a round that was stopped: tests/run",
}
"""Read by what neither a plan nor a model shows, or of a kind that the bases leave no choice in."""
NEEDS: dict[str, dict[str, Any]] = {
    "training.optimizer.schedule.decay": {"training.optimizer.schedule.kind": "inverse-time"},
    "training.optimizer.schedule.final": {
        "training.optimizer.schedule.kind": "cosine",
        "training.optimizer.schedule.rounds": 4,
    },
    "training.optimizer.schedule.rounds": {
        "training.optimizer.schedule.kind": "cosine",
        "training.optimizer.schedule.rounds": 4,
    },
    "training.proximal_mu": {"training.local_steps": 3},  # a first step is not pulled back
    "training.model.hidden": {"training.model.kind": "mlp"},
    "training.model.centred": {"training.rounds": 4},
    "training.optimizer.nesterov": {"training.optimizer.kind": "momentum"},
    "training.optimizer.beta1": {"training.optimizer.kind": "adam"},
    "training.optimizer.beta2": {"training.optimizer.kind": "adam"},
    "training.optimizer.tau": {"training.optimizer.kind": "adam"},
    "training.optimizer.initial_square": {"training.optimizer.kind": "yogi"},
    "training.optimizer.bias_correction": {"training.optimizer.kind": "adam"},
    "training.optimizer.momentum": {"training.optimizer.kind": "momentum"},
    "secure.opener": {"secure.custody": "sites"},
    "secure.options": {"secure.scheme": "bfv"},
    "compression.mask": {"compression.keep": "0.7"},
}
"""Setting -> others beside which it is read; alone it has to be refused, or it acts."""


def _leaves(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        parts = [field.annotation, *get_args(field.annotation)]
        inner = [p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]
        if inner:
            yield from _leaves(inner[0], f"{place}{name}.")
        else:
            yield f"{place}{name}"


def _base(mode: str) -> dict[str, Any]:
    values = tomllib.loads((HERE / "good" / "my.toml").read_text())
    values["privacy"] |= {
        "mode": mode,
        "epsilon": "50",
        "colluders": 1,
        "budget_epsilon": "Infinity",
    }
    values["training"] = {"rounds": 2, "optimizer": {"kind": "sgd", "learning_rate": 1.0}}
    third = {**copy.deepcopy(values["sites"][0]), "name": "east"}
    values["sites"].append(third)
    values["training"]["model"] = {"kind": "logistic"}
    return values


def _with(values: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(values)
    for place, value in settings.items():
        *above, last = place.split(".")
        here = made
        for name in above:
            here = here.setdefault(name, {})
        here[last] = value
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(HERE / "good", tmp_path_factory.mktemp("unread") / "good"))


_KNOWN: dict[tuple[str, Path], str | Exception] = {}
"""Of what was read before: most settings are tried beside the same others."""


def _facts(values: dict[str, Any], folder: Path) -> str:
    """All that a file's plan, keys and budgets are; not the list of what its text said."""
    key = json.dumps(values, sort_keys=True, default=str), folder
    if key not in _KNOWN:
        try:
            made = Federation.from_dict(values, base=folder)
            plan = json.loads(made.plan.canonical_json)
            del plan["recipe"]
            _KNOWN[key] = repr(
                (plan, made.parameters, made.config.privacy.budget, made.setup.opener)
            )
        except (ConfigError, SchemeError) as error:
            _KNOWN[key] = error
    found = _KNOWN[key]
    if isinstance(found, Exception):
        raise found
    return found


def _model(values: dict[str, Any], folder: Path) -> bytes:
    """The model that comes out under the same randomness."""
    values = _with(values, {"federation.output": f"out-{len(list(folder.iterdir()))}"})
    made = approved(Federation.from_dict(values, base=folder))
    result = Run(made.setup, DeterministicRandomness(SEED), "run-1").drive(None)
    assert result.outcome == "finished", result.reason
    return result.parameters.tobytes()  # the file's header names the plan, which says all settings


def test_the_list_of_settings_is_whole() -> None:
    sections = ("federation.", "privacy.", "training.", "secure.", "compression.")
    leaves = {leaf for leaf in _leaves(Config) if leaf.startswith(sections)}
    assert leaves == set(OTHERS) | set(ELSEWHERE)


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("mode", MODES)
def test_a_setting_acts_or_is_refused_by_name(mode: str, folder: Path) -> None:
    base, models = _base(mode), dict[str, bytes]()

    def trained(values: dict[str, Any]) -> bytes:
        known = json.dumps(values, sort_keys=True, default=str)
        models[known] = models.get(known) or _model(values, folder)
        return models[known]

    unread = []
    for place, other in OTHERS.items():
        for beside in ({}, NEEDS.get(place, {})):
            before = _with(base, beside)
            after = _with(before, {place: other})
            if before == after or _refusal(before, folder):
                continue
            refused = _refusal(after, folder)
            if refused and not any(word in refused for word in (*place.split(".")[-2:], "option")):
                unread.append(f"{place}: refused without its name: {refused}")
            if refused or _facts(before, folder) != _facts(after, folder):
                continue
            made = _steps if ".optimizer." in place else trained
            if made(before) == made(after) and (beside or place != "training.proximal_mu"):
                unread.append(f"{place} = {other} beside {beside}")
    assert not unread, "; ".join(unread)


def _steps(values: dict[str, Any]) -> bytes:
    """Where three steps of the server's optimiser lead."""
    spec = Config.model_validate(values).training.optimizer
    made, place = make_optimizer(spec), np.zeros(3)
    for number in (1.0, -3.0, 2.0):
        place = made.step(place, np.array([number, 0.5, -1.0]))
    average = made.average if made.average is not None else np.zeros(0)
    return bytes(place.tobytes() + average.tobytes())


def _refusal(values: dict[str, Any], folder: Path) -> str:
    try:
        _facts(values, folder)
    except (ConfigError, SchemeError) as error:
        return str(error)
    return ""


@pytest.mark.usefixtures("no_page")
def test_the_seed_acts_where_a_model_starts_somewhere(folder: Path) -> None:
    base = _with(_base("client"), {"training.model.kind": "mlp"})
    assert _model(_with(base, {"federation.seed": 7}), folder) != _model(base, folder)


def test_physical_batches_are_no_clients_business(folder: Path) -> None:
    rows = {"training.physical_batch": 3}
    for mode in MODES[:2]:
        Config.model_validate(_with(_base(mode), rows))
    with pytest.raises(ConfigError, match=r"training\.physical_batch has no effect"):
        Federation.from_dict(_with(_base("client"), rows), base=folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"federation.seed": 3}, "federation.seed has no effect with data.kind = 'app'"),
        ({"training.sampling_rate": "0.5"}, "training.sampling_rate has no effect"),
        ({"secure.opener": "north"}, "secure.opener has no effect"),
    ],
)
def test_an_apps_federation_refuses_what_it_does_not_read(
    change: dict[str, Any], said: str, folder: Path
) -> None:
    base = _base("client")
    sites = [{"name": name, "records": 5} for name in ("north", "south", "east")]
    base |= {"data": {"kind": "app", "parameters": 9}, "training": {"rounds": 2}, "sites": sites}
    del base["evaluation"]
    Federation.from_dict(base, base=folder)
    with pytest.raises(ConfigError, match=said):
        Federation.from_dict(_with(base, change), base=folder)


def test_labels_are_the_images(folder: Path) -> None:
    for place in ("sites", "evaluation"):
        values = _base("client")
        held = values["sites"][0] if place == "sites" else values[place]
        held["labels"] = "labels.npy"
        with pytest.raises(ConfigError, match=rf"{place}.*labels has no effect"):
            Federation.from_dict(values, base=folder)


def test_a_search_over_what_nothing_reads_is_refused(folder: Path) -> None:
    """Its candidates would be one and the same run, each paid for."""
    values = _base("record-distributed")
    values["tuning"] = {"grid": {"training.local_steps": [1, 5]}}
    with pytest.raises(ConfigError, match=r"candidate .*local_steps.* belongs to 'record-local'"):
        Federation.from_dict(values, base=folder).tune()
