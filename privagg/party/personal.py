"""A model of a site's own: an opened model, trained on at home on the site's records.

Nothing leaves, so nothing is charged, under every mode. The personal model is as private as the
records: whoever is shown it, or its predictions, is an observer that no ledger knows.

One that may be served is a run of its own: a configuration of this one site, `record-local`, with
`[training.continues]` from the opened model. It is charged to the site's own ledger, on top of what
the federation's run was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from privagg.config.setup import Setup
from privagg.errors import ConfigError, DataError
from privagg.party.folder import PartyFolder
from privagg.party.home import FolderHome
from privagg.privacy.randomness import Randomness, SystemRandomness
from privagg.programs.home import alike
from privagg.training.algorithms import AlgorithmSpec
from privagg.training.data import Records, chosen
from privagg.training.declared import ClientRule
from privagg.training.devices import ONE_THREAD
from privagg.training.draws import Draws
from privagg.training.evaluate import measured_at_home
from privagg.training.local_sgd import LocalSgd, personal_parameters
from privagg.training.modelcard import ModelCard, header_text
from privagg.training.models import get_parameters
from privagg.training.saving import PERSONAL, load_model, read_tensors, save_model
from privagg.training.taught import Taught

PERSONAL_NAME = "personal.safetensors"
"""The personal model, in the site's folder."""

NOT_CHARGED = (
    "fitted to one site's records without noise: epsilon is infinite for whoever sees this model "
    "or what it predicts, and nothing was charged; it stays at the site"
)
"""What is promised against whoever is served a personal model."""


@dataclass(frozen=True)
class HomeRule:
    """How a site trains on at home.

    Args:
        steps: of SGD.
        learning_rate: of each.
        batch_size: records of each.
        pull: λ of the pull λ/2 · |w − w_opened|² towards the opened model; 0 is fine-tuning.
        held_out: share of the site's records that is left out, to measure on.

    Source: Li, Hu, Beirami & Smith, "Ditto", ICML 2021; Liu, Hu, Wu & Smith, "On privacy and
        personalization in cross-silo federated learning" (MR-MTL), NeurIPS 2022.
    """

    steps: int = 50
    learning_rate: float = 0.1
    batch_size: int = 32
    pull: float = 0.0
    held_out: float = 0.0

    def __post_init__(self) -> None:
        usable = self.steps > 0 and self.batch_size > 0 and 0 < self.learning_rate <= 1e6
        if not (usable and 0 <= self.pull <= 1e6 and 0 <= self.held_out < 1):
            raise ConfigError(
                f"{self} cannot be used: steps and batch_size are at least 1, learning_rate is "
                "above 0, pull is not below 0, held_out is from 0 to below 1"
            )


@dataclass(frozen=True)
class Personal:
    """A site's own model.

    Attributes:
        path: its file, which only the site's owner can read.
        sha256: of the file, hex.
        opened: figures of the opened model on the records held out; empty without any. Private.
        personal: figures of the personal model on them. Private.
    """

    path: Path
    sha256: str
    opened: Mapping[str, float] = field(default_factory=dict)
    personal: Mapping[str, float] = field(default_factory=dict)


def personalise(
    setup: Setup,
    folder: PartyFolder,
    model: Path,
    rule: HomeRule,
    *,
    output: Path | None = None,
    randomness: Randomness | None = None,
) -> Personal:
    """Train an opened model on at home.

    Where a part of the model stayed at home all along (`fedper`, `fedrep`), the site's own part is
    put into it first. Under `class-logits` all of it did: what lies at home goes on, a network of
    the site's own kind, and its file says which.

    Args:
        setup: the configuration that the model was trained by.
        folder: the site's own.
        model: file of the opened model.
        rule: how it is trained.
        output: the personal model's file; by default `personal.safetensors` in the folder.
        randomness: of batches and of what is held out; the operating system's by default.

    Raises:
        ConfigError: no such model or site, or nothing of the site's own part is kept here.
        DataError: the site has no records to train on, or training did not stay finite.
        ModelError: the file holds another model.
    """
    site = folder.party().name
    draws = Draws(randomness or SystemRandomness(), ("personal", 1, 1), site, setup.training_plan)
    network, header = _at_home(setup, folder, model)
    start = get_parameters(network)
    kept, measured = _split(setup.records_of(setup.section(site)), rule.held_out, draws)
    trained = _trained(setup, network, kept, rule, draws)
    path = output or folder.root / PERSONAL_NAME
    sha256 = save_model(network, trained, path, header, secret=True)
    found = Personal(path, sha256)
    if len(measured) == 0:
        return found
    target, loss = setup.config.data.target, setup.objective.loss
    before, after = (
        measured_at_home(network, each, measured, target, loss).all_figures
        for each in (start, trained)
    )
    return replace(found, opened=before, personal=after)


def _at_home(setup: Setup, folder: PartyFolder, model: Path) -> tuple[nn.Module, dict[str, str]]:
    """What is trained on, the site's own part in it; and what its file says of itself."""
    site, header = folder.party().name, {PERSONAL: NOT_CHARGED}
    network, config = setup.whole_model(site), setup.config
    if not isinstance(network, Taught):
        network = load_model(network, model)
        _put_own_part(network, config.training.algorithm, folder)
        return network, header
    network.require_table(read_tensors(model)[0], model)
    _put_own_part(network, config.training.algorithm, folder)
    data, spec = config.data, setup.network_at(site) or config.training.model
    card = ModelCard.facts(
        spec, data.shape, data.source, data.target, setup.training_plan.digest
    )  # fmt: skip
    return network.network, {**header, "privagg": header_text(card)}


def _put_own_part(network: nn.Module, algorithm: AlgorithmSpec, folder: PartyFolder) -> None:
    own = personal_parameters(network, algorithm.personal)
    if not own:
        return
    kept = FolderHome(folder.home).last()
    if kept is None or not alike(kept, {n: p.detach().numpy() for n, p in own.items()}):
        raise ConfigError(
            f"{folder.home} keeps no part of this model: {folder.party().name!r} has taken part in "
            "no run of it with records of its own"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(np.asarray(kept[name])))


def _split(records: Records, share: float, draws: Draws) -> tuple[Records, Records]:
    """What is trained on, and what is measured on."""
    order = next(draws.batches(len(records), len(records))) if len(records) else np.empty(0, int)
    held = round(share * len(records))
    return chosen(records, np.sort(order[held:])), chosen(records, np.sort(order[:held]))


def _trained(
    setup: Setup, network: nn.Module, records: Records, rule: HomeRule, draws: Draws
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The personal model's parameters, float64 (d,)."""
    if len(records) == 0:
        raise DataError(f"{draws.site!r} has no records to train on at home")
    start = get_parameters(network)
    local = ClientRule(learning_rate=rule.learning_rate, prox_mu=rule.pull)
    sgd = LocalSgd(network, records, local, setup.objective.loss, ONE_THREAD)
    batches = draws.batches(len(records), rule.batch_size)
    trained = start + sgd.train(start, batches, rule.steps, layer_seed=draws.layer_seed())
    if not np.isfinite(trained).all():
        raise DataError(
            "training at home ended in values that are not finite; take a smaller learning_rate "
            f"than {rule.learning_rate}"
        )
    return trained
