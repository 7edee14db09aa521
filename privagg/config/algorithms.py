"""What an algorithm needs of the rest of a file: refused by name, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from privagg.training.targets import ClassKind

_LOCAL_STATE = (
    "what a site keeps from its records depends on all of them, so that one more record would "
    "change every later upload by more than one clip"
)
_SHARED_VARIATE = (
    "a control variate made of an upload that holds one share of the noise would carry more of "
    "each record into later rounds than is charged; under 'record-local' it holds all of it"
)
_ONE_UPDATE = "it is a site's whole update that is clipped, and record level clips gradients"
MODES = {
    "scaffold": (("client", "record-local"), _SHARED_VARIATE),
    "fedper": (("client",), _LOCAL_STATE),
    "fedrep": (("client",), _LOCAL_STATE),
    "per-fedavg": (("client",), _ONE_UPDATE),
    "adaptive-clip": (("client",), _ONE_UPDATE),
    "fedma": (("client",), _ONE_UPDATE),
    "halves": (("client",), "record level has no cohorts"),
    "class-logits": (("client",), _LOCAL_STATE),
}
"""Algorithm -> the modes that it goes with, and why with no other."""


def unfit(config: Any) -> Iterator[str]:
    """Why the algorithm does not go with the rest of a file, each in a sentence.

    Args:
        config: `privagg.config.schema.Config`, otherwise consistent.
    """
    kind = config.training.algorithm.kind
    yield from filter(None, (network_fault(kind, s.name, s.network) for s in config.sites))
    if kind == "fedavg":
        return
    modes, reason = MODES[kind]
    if config.privacy.mode not in modes:
        yield (
            f"training.algorithm {kind!r} does not go with privacy.mode = "
            f"{config.privacy.mode!r}: {reason}; use {' or '.join(map(repr, modes))}"
        )
    elif kind == "scaffold":
        yield from _scaffold(config)
    elif kind == "halves":
        yield from _halves(config)
    elif kind in ("adaptive-clip", "fedma") and config.compression is not None:
        yield (
            f"training.algorithm {kind!r} needs every coordinate as it is, counts are among them; "
            "remove [compression]"
        )
    elif config.training.algorithm.personal:
        yield from _personal(config)
    if kind == "class-logits":
        yield from _class_logits(config)


def network_fault(kind: str, site: str, network: object) -> str:
    """Why a network of a site's own is not what the algorithm takes; empty where it is.

    Args:
        kind: of the algorithm.
        site: its name.
        network: as the site names it; None: it has none of its own.
    """
    here, beside = f"sites[{site}].network", f"training.algorithm = {kind!r}"
    if network is None or kind == "class-logits":
        return ""
    if kind != "fedma":
        return (
            f"{here} has no effect with {beside}: it belongs to 'fedma' and 'class-logits'; "
            "remove it"
        )
    return "" if isinstance(network, str) else f"{here} with {beside} is the path of a file"


def _scaffold(config: Any) -> Iterator[str]:
    training, plain = config.training, type(config.training.optimizer)()
    if training.optimizer != plain:
        yield (
            "training.algorithm 'scaffold' reads the server's variate from two models in a row; "
            "leave training.optimizer at kind = 'sgd', learning_rate = 1"
        )
    if training.cohort_size or config.privacy.dropouts:
        yield (
            "training.algorithm 'scaffold' needs every site in every round, else the variates' "
            "mean is not the server's; remove training.cohort_size and privacy.dropouts"
        )
    if config.compression is not None:
        yield (
            "training.algorithm 'scaffold' needs every coordinate of every update, for the "
            "variates; remove [compression]"
        )


def _halves(config: Any) -> Iterator[str]:
    size, sites = config.training.cohort_size, len(config.sites)
    if not 0 < 2 * size <= sites:
        yield (
            f"training.algorithm 'halves' needs training.cohort_size from 1 to {sites // 2}, half "
            f"of the {sites} sites, and not {size}: leaving one out would open sums that differ "
            "by a single site's update"
        )
    if config.public_table is None:
        yield (
            "training.algorithm 'halves' scores rounds on a table declared public; add "
            "[evaluation] with one"
        )


def _class_logits(config: Any) -> Iterator[str]:
    plain = type(config.training.optimizer)()
    if config.training.optimizer != plain or config.compression is not None:
        yield (
            "training.algorithm 'class-logits' opens a table and takes no step along it; leave "
            "training.optimizer out, and [compression]"
        )
    if not isinstance(config.data.target, ClassKind):
        yield (
            "training.algorithm 'class-logits' shares logits by class, and the target "
            f"{config.data.target.name!r} has none"
        )


def _personal(config: Any) -> Iterator[str]:
    kind = config.training.algorithm.kind
    if config.evaluation is not None or config.tuning is not None:
        yield (
            f"training.algorithm {kind!r} opens a part of a model, and figures of it with no "
            "site's own part would mislead; remove [evaluation] and [tuning], and look at a "
            "site's model at home: privagg personalise"
        )
    if kind == "fedrep":
        steps, own = config.training.local_steps, config.training.algorithm.personal_steps
        if own >= steps:
            yield (
                f"training.algorithm 'fedrep' with personal_steps = {own} leaves none of "
                f"training.local_steps = {steps} for the shared part; raise local_steps"
            )
