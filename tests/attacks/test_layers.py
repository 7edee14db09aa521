"""Layers with which a budget would buy noise: every record counted zero, or as something else.

Told on a learner's contribution, whichever way it is computed: the layer is refused by name before
anything is charged, or the contribution is the sum of the records' own clipped gradients.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from privagg import Federation
from privagg.errors import ModelError
from privagg.party.open import ledger_here
from privagg.privacy.ledger.entries import Charge
from privagg.training.declared import EngineName
from privagg.training.losses import class_loss
from privagg.training.models import get_parameters
from tests.approvals import approved
from tests.attacks.test_layout import S, contribution, made, site_records
from tests.commands import call
from tests.zoo import ACCEPTED, REFUSED, STEPS, WIDTH

NAMES = ("north", "east", "south")
ENGINES: tuple[EngineName, ...] = ("exact", "opacus")


TAKEN = {kind: case for kind, case in REFUSED.items() if case.exact_takes}


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        *itertools.product(sorted(REFUSED.keys() - TAKEN), ENGINES),
        *itertools.product(TAKEN, ["opacus"]),
    ],
)
def test_a_layer_that_trains_nothing_is_refused_by_its_name(kind: str, engine: EngineName) -> None:
    case = REFUSED[kind]
    with pytest.raises(ModelError, match=rf"{case.layer}.*Nothing was charged"):
        contribution(made(case), site_records(case, 12), engine=engine)


@pytest.mark.parametrize(
    ("kind", "engine"),
    [*itertools.product(ACCEPTED, ENGINES), *itertools.product(TAKEN, ["exact"])],
)
def test_every_accepted_layer_trains_on_each_records_own_gradient(
    kind: str, engine: EngineName
) -> None:
    """Held against plain autograd on one record at a time, clipped in float64."""
    case = {**ACCEPTED, **TAKEN}[kind]
    records = site_records(case, 9)
    plain = copy.deepcopy(made(case)).train()
    weights = [p for p in plain.parameters() if p.requires_grad]
    expected = np.zeros(len(get_parameters(plain)))
    for i in range(len(records)):
        x, y = records.gather(np.array([i]))
        found = torch.autograd.grad(
            class_loss(plain(x), y).sum(), weights, allow_unused=True, materialize_grads=True
        )
        own = np.concatenate([g.reshape(-1).numpy() for g in found]).astype(np.float64)
        expected += own * S * min(1.0, 1 / np.linalg.norm(own))
    ours = contribution(made(case), records, engine=engine)
    assert ours.any()
    if engine == "exact":  # 3 % of the clip are left for rounding; many positions err by 5 %
        assert np.linalg.norm(ours - expected) < 0.1 * np.linalg.norm(expected)
        return
    # Each record is truncated by less than a unit a coordinate; float32 gradients differ by 1e-5.
    assert np.abs(ours - expected).max() < len(records) * (1 + 2e-5 * S)


def gru() -> nn.Module:
    return made(REFUSED["GRU"])


def sentences() -> TensorDataset:
    records = site_records(REFUSED["GRU"], 40)
    return TensorDataset(records.x, records.y)


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_gru_is_refused_at_the_command_line_before_any_charge(
    command: str, tmp_path: Path
) -> None:
    """It trained nothing, said so nowhere, ended with 0 and spent the whole budget."""
    path = tmp_path / "recurrent.toml"
    path.write_text(
        '[federation]\nname = "recurrent"\n'
        '[privacy]\nmode = "record-distributed"\nepsilon = 8\ndelta = 1e-5\ncolluders = 0\n'
        f'[training]\nmodel = "{__name__}:gru"\nrounds = 2\nsampling_rate = 0.5\n'
        '[training.optimizer]\nkind = "sgd"\nlearning_rate = 1.0\n'
        '[secure]\nscheme = "plaintext"\ncustody = "authority"\n'
        f'[data]\nkind = "dataset"\nshape = [{STEPS}]\nclasses = 2\n'
        + "".join(
            f'[[sites]]\nname = "{name}"\ndata = "{__name__}:sentences"\nrecords = 40\n'
            for name in NAMES
        )
    )
    approved(Federation.from_toml(path))  # its code may run; what it builds is refused all the same
    answer = call(command, path)
    assert answer.code != 0
    said = " ".join(answer.err.split())
    assert "'layer' (GRU)" in said
    assert "opacus.layers.DPGRU" in said
    federation = Federation.from_toml(path)
    for name in NAMES:
        entries = ledger_here(federation.setup, name).entries()
        assert not [entry for entry in entries if isinstance(entry.payload, Charge)]


def test_in_place_layers_train_as_others_do() -> None:
    """Hooks cannot follow a layer that overwrites its input, so it is told to make a new tensor."""
    case = ACCEPTED["Linear+ReLU in place"]
    records = site_records(case, 20)

    def other() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(STEPS, WIDTH), nn.ReLU(), nn.Flatten(), nn.Linear(WIDTH, 2))

    np.testing.assert_array_equal(contribution(made(case), records), contribution(other(), records))
