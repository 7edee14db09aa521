"""What a party believes without being told: keys, names and the one plan that it takes part in."""

from __future__ import annotations

from dataclasses import dataclass

from privagg.errors import KeyMismatchError, WrongRoundError
from privagg.identity.keys import Roster
from privagg.privacy.plan import Plan
from privagg.secure.scheme import Parameters


@dataclass(frozen=True)
class Pins:
    """What a site believes without being told: its own configuration.

    Args:
        roster: identity keys of everybody that it gets messages from.
        coordinator: the only party that may start and close rounds.
        plan_digest: the only plan it takes part in.
        opener: the only party whose word counts on the key of a run and on what was opened.
    """

    roster: Roster
    coordinator: str
    opener: str
    plan_digest: str


def require_agreed(name: str, pins: Pins, plan: Plan, parameters: Parameters) -> None:
    """Refuse a plan that is not the pinned one, and parameters of another scheme than its own.

    Args:
        name: of the party, as the error tells it.
        pins: what it believes.
        plan, parameters: what it was given to take part with.

    Raises:
        WrongRoundError: another plan than the pinned one.
        KeyMismatchError: parameters of another scheme than the plan's.
    """
    if plan.digest != pins.plan_digest:
        raise WrongRoundError(
            f"{name!r} pinned plan {pins.plan_digest[:16]}... but was given "
            f"{plan.digest[:16]}...; agree on one plan and pin its digest"
        )
    if parameters.scheme != plan.scheme:
        raise KeyMismatchError(
            f"the plan is for scheme {plan.scheme!r}, the parameters are of {parameters.scheme!r}"
        )
