"""Settings that nothing reads beside the others of a file: refused by name, as they would mislead.

A setting that says what holds anyway, its default, is let through: it promises nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

_SHARED, _RECORDS = ("record-distributed", "client"), ("record-distributed", "record-local")
_STEPS = ("record-local", "client")
_READERS = {
    "privacy.dropouts": _SHARED,
    "privacy.colluders": _SHARED,
    "privacy.unit": ("client",),
    "training.sampling_rate": _RECORDS,
    "training.local_steps": _STEPS,
    "training.local_learning_rate": _STEPS,
    "training.proximal_mu": _STEPS,
    "training.local_batch_size": ("client",),
    "training.update_bound": ("record-local",),
    "training.cohort_size": ("client",),
    "training.physical_batch": _RECORDS,
    "training.engine": _RECORDS,
}
"""Setting -> the modes under which it is read; all others are read under every mode."""

_ASKED = ("privacy.dropouts", "privacy.colluders")
"""Read wherever questions are asked: their noise is shared out under every mode of training."""

_TABLES = ("table", "undeclared")

_KNOWN = frozenset((*_RECORDS, *_STEPS))


def unread(config: Any) -> Iterator[str]:
    """What is set to something else than its default and read by nothing, each in a sentence.

    Args:
        config: `privagg.config.schema.Config`, otherwise consistent.
    """
    mode = config.privacy.mode
    for place, modes in _READERS.items() if mode in _KNOWN else ():
        section, name = place.split(".")
        if place in _ASKED and (config.ask or config.facts or config.private_evaluation):
            continue
        if mode not in modes and _is_set(getattr(config, section), name):
            yield _sentence(place, f"privacy.mode = {mode!r}", " and ".join(map(repr, modes)))
    if config.secure.opener is not None and config.secure.custody != "sites":
        custody = f"secure.custody = {config.secure.custody.value!r}"
        yield _sentence("secure.opener", custody, "custody 'sites'")
    if config.training.loss is not None:
        for weights in ("class_weights", "label_weights"):
            holders = (config.data, getattr(config.data, "target", None))
            if any(getattr(holder, weights, None) is not None for holder in holders):
                own = f"training.loss = {config.training.loss!r}"
                yield _sentence(weights, own, "the target's own loss")
    if config.data.kind == "app" and _is_set(config.federation, "seed"):
        yield _sentence("federation.seed", "data.kind = 'app'", "models that privagg makes")
    named = {f"sites[{site.name}]": site for site in config.sites}
    kind = f"data.kind = {config.data.kind!r}"
    for place, one in {**named, "evaluation": config.public_table}.items():
        if one is not None and one.labels is not None and config.data.kind != "images":
            yield _sentence(f"{place}.labels", kind, "data.kind = 'images'")
        if one and one.file.model_fields_set and config.data.kind not in _TABLES:
            yield _sentence(f"{place}.file", kind, "data.kind = 'table'")


def _is_set(section: BaseModel, name: str) -> bool:
    default = type(section).model_fields[name].default
    return name in section.model_fields_set and getattr(section, name) != default


def _sentence(place: str, beside: str, readers: str) -> str:
    return f"{place} has no effect with {beside}: it belongs to {readers}; remove it"
