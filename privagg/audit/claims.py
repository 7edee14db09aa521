"""Claim, recomputed value, verdict: what a verification consists of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from privagg.errors import PrivaggError

MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
"""What reading a stranger's facts can raise where they are not what they should be."""


class Verdict(str, Enum):
    """`holds`: recomputed and equal. `fails`: it is not so. `open`: nothing here decides it."""

    HOLDS = "holds"
    FAILS = "fails"
    OPEN = "not verifiable"


@dataclass(frozen=True)
class Claim:
    """One statement of a report or bundle, held against what follows from the evidence.

    Attributes:
        section: what it is about: `bundle`, `run`, or a party's name.
        subject: what is claimed.
        claimed: as stated.
        recomputed: as it follows from the evidence; empty where nothing does.
        note: a remark in plain words.
        compared: how many single values this claim stands for.
    """

    section: str
    subject: str
    claimed: str
    recomputed: str
    verdict: Verdict
    note: str = ""
    compared: int = 1


@dataclass
class Findings:
    """Claims as they are checked, in order."""

    claims: list[Claim] = field(default_factory=list)
    section: str = "bundle"

    def check(
        self,
        subject: str,
        claimed: str,
        recomputed: str,
        holds: bool,
        note: str = "",
        *,
        compared: int = 1,
    ) -> bool:
        """Record a claim that was recomputed; return whether it holds."""
        verdict = Verdict.HOLDS if holds else Verdict.FAILS
        self.claims.append(
            Claim(self.section, subject, claimed, recomputed, verdict, note, compared)
        )
        return holds

    def fails(self, subject: str, claimed: str, note: str) -> None:
        """Record a claim that does not hold, for the reason in `note`."""
        self.check(subject, claimed, "", False, note)

    def open(self, subject: str, claimed: str, note: str) -> None:
        """Record a claim that nothing here decides."""
        self.claims.append(Claim(self.section, subject, claimed, "", Verdict.OPEN, note))

    def attested(self, subject: str, claimed: str, *, by: str, settle: str) -> None:
        """Record a claim that only its maker vouches for, and what would settle it."""
        self.open(subject, claimed, f"attested by {by}; {settle}")

    def ordered(self) -> tuple[Claim, ...]:
        """The claims by section, each section's in the order of checking."""
        sections = dict.fromkeys(("bundle", "report", "run", *(c.section for c in self.claims)))
        place = {section: number for number, section in enumerate(sections)}
        return tuple(sorted(self.claims, key=lambda claim: place[claim.section]))

    @contextmanager
    def guarded(self, subject: str, claimed: str) -> Iterator[None]:
        """Whatever a stranger's facts make go wrong inside becomes a claim that fails."""
        try:
            yield
        except PrivaggError as error:
            self.fails(subject, claimed, str(error))
        except MALFORMED as error:
            self.fails(subject, claimed, f"the facts are malformed ({type(error).__name__})")


@dataclass(frozen=True)
class Verification:
    """Everything that was claimed, and what became of it.

    Attributes:
        kind: `bundle`, or `report` where no ledgers were given.
        run: the run that the report names.
        federation: its federation.
        claims: by section.
    """

    kind: str
    run: str
    federation: str
    claims: tuple[Claim, ...]

    @property
    def holds(self) -> bool:
        """True where no claim fails."""
        return not self.of(Verdict.FAILS)

    def of(self, verdict: Verdict) -> tuple[Claim, ...]:
        """The claims with this verdict."""
        return tuple(claim for claim in self.claims if claim.verdict is verdict)

    @property
    def compared(self) -> int:
        """How many single values were recomputed and compared."""
        return sum(claim.compared for claim in self.claims if claim.verdict is not Verdict.OPEN)

    def to_json(self) -> dict[str, Any]:
        """For machines; format `privagg-verification/1`."""
        return {
            "format": "privagg-verification/1",
            "kind": self.kind,
            "federation": self.federation,
            "run": self.run,
            "holds": self.holds,
            "compared": self.compared,
            "claims": [
                {
                    "section": claim.section,
                    "subject": claim.subject,
                    "claimed": claim.claimed,
                    "recomputed": claim.recomputed,
                    "verdict": claim.verdict.value,
                    "note": claim.note,
                    "compared": claim.compared,
                }
                for claim in self.claims
            ],
        }
