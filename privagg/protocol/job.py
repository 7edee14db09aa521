"""What the coordinator of a run holds, and how one of its rounds ended."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from privagg.encoding.vectors import FloatVector, IntVector
from privagg.errors import SchemeError
from privagg.identity.keys import Identity, Roster
from privagg.privacy.plan import Plan
from privagg.protocol.aggregator import RoundTerms
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.cohorts import drawn_cohort, draws_cohorts
from privagg.protocol.key_statement import RunKey, require_custody
from privagg.protocol.messages import Statement
from privagg.secure.scheme import Parameters, Phase, Recovery, Scheme

DRIVEN = ((Phase.UPLOAD, Phase.OPEN), (Phase.UPLOAD, Phase.CONSENT, Phase.RELEASE))
"""The orders of phases that a round drives: one party opens, or the contributors together."""

OPENING_TRIES = 3
"""How often one and the same opening request is sent when no answer comes."""


MAX_REASON = 2048
"""Characters of a reason that are kept."""


def one_line(text: str) -> str:
    """Another party's words as ledgers, logs and terminals take them: nothing but printed signs."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:MAX_REASON]


def require_driven(scheme: Scheme) -> Scheme:
    """Return the scheme if a round drives what it declares.

    Raises:
        SchemeError: it declares other phases, or in another order.
    """
    if scheme.phases not in DRIVEN:
        declared = ", ".join(phase.value for phase in scheme.phases)
        driven = "; or ".join(", ".join(phase.value for phase in order) for order in DRIVEN)
        raise SchemeError(
            f"scheme {scheme.name!r} declares the phases {declared or 'none'}; a round drives "
            f"{driven}, each once and in this order. Choose another scheme; no site was asked for "
            "anything"
        )
    return scheme


@dataclass(frozen=True)
class Job:
    """What the coordinator of a run holds: public facts, its own identity, pinned keys.

    Args:
        run: identifier of the run.
        plan: the agreed plan.
        scheme: the secure aggregation scheme.
        key: the run's key, as its holder stated it.
        key_gone: why nothing is opened under it any more; empty where it is.
        identity: the coordinator's own.
        roster: pinned identity keys of sites and key holder.
        opener: the party that answers opening requests.
        watch: keeps the checkpoints of the sites' ledgers, and knows what the others keep.

    Raises:
        SchemeError: the scheme declares phases that a round does not drive, or the plan's custody
            is not the scheme's.
    """

    run: str
    plan: Plan
    scheme: Scheme
    key: RunKey
    identity: Identity
    roster: Roster
    opener: str
    watch: CheckpointWatch
    key_gone: str = ""
    keyed: set[str] = field(default_factory=set)
    """Sites known to have the run's key, as they uploaded under it."""
    failures: Counter[str] = field(default_factory=Counter)
    """Site -> how often it was listed and did not help to open a sum, since it last did."""
    convicted: dict[str, str] = field(default_factory=dict)
    """Site -> what it is shown to have signed against the protocol; it is asked for no upload."""

    def __post_init__(self) -> None:
        require_driven(self.scheme)
        require_custody(self.scheme, self.plan)

    @property
    def parameters(self) -> Parameters:
        """The scheme's public parameters, the key's public facts included."""
        return self.key.parameters

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) of the encryption key."""
        return self.key.key_id

    def recovery(self, result: RoundOutcome) -> Recovery | None:
        """What takes the round's attachments; None where the scheme attaches nothing.

        Raises:
            CohortError: fewer sites that are asked have a key of their own than a sum needs.
        """
        occasion = self.key.occasion(result.round, result.attempt, result.cohort)
        return self.parameters.recovery(occasion)

    def may_be_tried_again(self, number: int, released: Collection[str]) -> bool:
        """Whether a round whose opening failed may have a new attempt, that is charged again.

        Whoever released contributes to no further attempt. Where a party holds the key, or consents
        bind too, or too few would be left, it could open nothing.

        Args:
            number: of the round.
            released: sites that did in any attempt of it.
        """
        planned = self.plan.in_round(number)
        left = planned.addends - len(released)
        binds = not self.scheme.every_site or self.parameters.binds_by_consent
        return not binds and left >= planned.minimum_survivors

    def cohort(self, number: int) -> tuple[str, ...]:
        """The sites asked in a round: `addends` of them.

        Drawn uniformly by the OS CSPRNG; where sites open together, as `drawn_cohort` says.
        """
        if draws_cohorts(self.plan, number):
            return drawn_cohort(self.plan, self.run, number)
        planned = self.plan.in_round(number)
        return self.plan.in_order(secrets.SystemRandom().sample(planned.names, planned.addends))

    def heading(self, result: RoundOutcome) -> dict[str, Any]:
        """How every message of the coordinator in this round begins."""
        return {
            "run": self.run,
            "round": result.round,
            "attempt": result.attempt,
            "sender": self.identity.name,
            "plan_digest": self.plan.digest,
        }

    def terms(
        self, round_number: int, attempt: int, cohort: tuple[str, ...], start: str = ""
    ) -> RoundTerms:
        """What the aggregator holds uploads against.

        Args:
            round_number: from 1.
            attempt: from 1.
            cohort: sites that are asked, in roster order.
            start: as for `RoundTerms`.
        """
        return RoundTerms(
            run=self.run,
            round=round_number,
            attempt=attempt,
            plan_digest=self.plan.digest,
            key_id=self.key_id,
            dimension=self.plan.upload_dimension,
            names=self.plan.names,
            cohort=cohort,
            minimum_survivors=self.plan.in_round(round_number).minimum_survivors,
            strict=self.plan.strict,
            start=start,
        )


@dataclass
class RoundOutcome:
    """How a round ended; every field is a public fact.

    Attributes:
        round: from 1.
        attempt: from 1.
        cohort: sites that were asked, in roster order.
        outcome: `opened`, or `stopped` by the plan's rule before anything was opened.
        reason: why it stopped; empty when opened.
        update: float64 (d,), what `total` means under the plan, the direction that a server
            optimiser steps along; None when stopped, and in a `summary`.
        total: int64 (n,), the opened sum; None as `update`.
        survivors: contributors of the opened sum, in roster order.
        refusals: site -> why something it sent was not taken, or nothing came.
        bytes_up: party -> size of all frames that came from it: a site's upload, consents, releases
            and refusals, the key holder's opening, acknowledgements.
        bytes_down: party -> size of all frames that were sent to it: the key's statement, the
            round's start, requests to open or to release, the round's close.
        upload_bytes: site -> size of its upload alone, with what is attached to it.
        seconds: wall-clock seconds of `add` (check, verify, fold), `open` and the whole `round`.
        exchanges: how often messages went out and answers were waited for.
        opening_asked: whether a request to open went out that may be granted yet; then no new
            attempt is made, as one cohort a round is opened.
        answer: the key holder's signed answer, from which the update follows.
        close: the frame that tells the cohort how the round ended; posted, so perhaps not yet sent.
        statements: what the sites signed of their uploads, then the key holder of its opening.
    """

    round: int
    attempt: int
    cohort: tuple[str, ...]
    outcome: Literal["opened", "stopped"] = "stopped"
    reason: str = ""
    update: FloatVector | None = None
    total: IntVector | None = None
    survivors: tuple[str, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    upload_bytes: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    exchanges: int = 0
    opening_asked: bool = False
    answer: bytes = field(default=b"", repr=False)
    close: bytes = field(default=b"", repr=False)
    statements: tuple[Statement, ...] = field(default=(), repr=False)

    def refuse(self, party: str, why: str) -> None:
        """Note why something of a party's was not taken, besides what was noted before."""
        before, why = self.refusals.get(party), one_line(why)
        self.refusals[party] = why if before is None else f"{before}; {why}"

    def summary(self) -> RoundOutcome:
        """The same without what is as large as the model or a frame, for whoever keeps them all."""
        return replace(self, update=None, total=None, answer=b"", close=b"", statements=())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall-clock time of a block to `seconds[stage]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
