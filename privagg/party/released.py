"""Is a model one that a run of this federation opened, trained without the held-out records?"""

from __future__ import annotations

import json
from typing import Any

from privagg.config.evaluating import EvaluateSetup
from privagg.config.plan import recipe_of
from privagg.errors import ConfigError
from privagg.party.folder import PartyFolder
from privagg.party.local import local_folder
from privagg.privacy.ledger import Ledger
from privagg.privacy.ledger.entries import Released, RunStarted
from privagg.protocol.names import COORDINATOR

_SAME = ("data", "held_out")
"""Of the recipe that a model was trained by: which records it never saw follows from these."""


def require_released(setup: EvaluateSetup, coordinator: PartyFolder | None = None) -> None:
    """Refuse to evaluate a model that nobody opened, or that may have seen the held-out records.

    Args:
        setup: the evaluation.
        coordinator: whose ledger says what was released; by default of a local run.

    Raises:
        ConfigError: no run recorded here released it, or that run held out other records.
        ModelError: as `EvaluateSetup.sums`.
    """
    digest = setup.model_sha256
    place = (coordinator or local_folder(setup.output, COORDINATOR)).ledger
    payloads = [entry.payload for entry in Ledger.open(place).entries()] if place.exists() else []
    runs = {
        str(each.facts.get("run" if "run" in each.facts else "of"))
        for each in payloads
        if isinstance(each, Released)
        and digest in (each.facts.get("model_sha256"), each.facts.get("round_sha256"))
    }
    recipes = [
        _recipe(each.facts.get("plan"))
        for each in payloads
        if isinstance(each, RunStarted) and each.run in runs
    ]
    if not recipes:
        raise ConfigError(
            f"no run recorded in {place} released the model {setup.model_path}; only a "
            "model that was opened is evaluated: train it here first. Nothing was spent"
        )
    wanted = recipe_of(setup.config)
    if not any(all(recipe.get(key) == wanted[key] for key in _SAME) for recipe in recipes):
        raise ConfigError(
            f"the model {setup.model_path} was trained without holding out the records that this "
            "configuration holds out ([evaluation] private, held_out, key, and the columns as "
            "declared in [data]), so it may have seen them; train it again with these settings, "
            "or restore those that it was trained with. Nothing was spent"
        )


def _recipe(plan: Any) -> dict[str, Any]:
    """Of a recorded plan."""
    recipe = (json.loads(plan) if isinstance(plan, str) else plan or {}).get("recipe")
    return recipe if isinstance(recipe, dict) else {}
