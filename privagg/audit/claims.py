"""Claim, recomputed value, verdict: what a verification consists of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from privagg.errors import CertificationError, ConfigError, PrivaggError

MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
"""What reading a stranger's facts can raise where they are not what they should be."""


class Verdict(str, Enum):
    """What the evidence says of a claim.

    `proved`: it follows from the evidence, recomputed here. `attested`: somebody's word, by name,
    is all there is. `contradicted`: the evidence says otherwise. `not decided`: nothing here tells.
    """

    PROVED = "proved"
    ATTESTED = "attested"
    CONTRADICTED = "contradicted"
    UNDECIDED = "not decided"


@dataclass(frozen=True)
class Claim:
    """One statement of a report or bundle, held against what follows from the evidence.

    Attributes:
        section: what it is about: `bundle`, `run`, or a party's name.
        subject: what is claimed.
        claimed: as stated.
        recomputed: as it follows from the evidence; empty where nothing does.
        verdict: what the evidence says.
        note: a remark in plain words.
        compared: how many single values this claim stands for.
        by: whose word an attested claim is; empty for others.
        settle: what a reader would need to settle a claim that is attested or not decided.
    """

    section: str
    subject: str
    claimed: str
    recomputed: str
    verdict: Verdict
    note: str = ""
    compared: int = 1
    by: str = ""
    settle: str = ""

    @property
    def name(self) -> str:
        """What `--require` calls the claim: `section/subject`, in small letters and hyphens."""
        return f"{_slug(self.section)}/{_slug(self.subject)}"


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
        """Record a claim that was recomputed; return whether it holds.

        Args:
            subject: what is claimed.
            claimed: as stated.
            recomputed: as it follows from the evidence.
            holds: whether both agree.
            note: a remark in plain words, such as the reason why not.
            compared: how many single values this claim stands for.
        """
        verdict = Verdict.PROVED if holds else Verdict.CONTRADICTED
        self.claims.append(
            Claim(self.section, subject, claimed, recomputed, verdict, note, compared)
        )
        return holds

    def contradicted(self, subject: str, claimed: str, note: str) -> None:
        """Record a claim that the evidence contradicts.

        Args:
            subject: what is claimed.
            claimed: as stated.
            note: the reason.
        """
        self.check(subject, claimed, "", False, note)

    def undecided(self, subject: str, claimed: str, settle: str) -> None:
        """Record a claim that nothing here decides.

        Args:
            subject: what is claimed.
            claimed: as stated.
            settle: what would decide it.
        """
        claim = Claim(self.section, subject, claimed, "", Verdict.UNDECIDED, settle=settle)
        self.claims.append(claim)

    def attested(self, subject: str, claimed: str, *, by: str, settle: str) -> None:
        """Record a claim that only its maker vouches for.

        Args:
            subject: what is claimed.
            claimed: as stated.
            by: whose word it is.
            settle: what would prove it.
        """
        claim = Claim(self.section, subject, claimed, "", Verdict.ATTESTED, by=by, settle=settle)
        self.claims.append(claim)

    def ordered(self) -> tuple[Claim, ...]:
        """The claims by section, each section's in the order of checking."""
        sections = dict.fromkeys(("bundle", "report", "run", *(c.section for c in self.claims)))
        place = {section: number for number, section in enumerate(sections)}
        return tuple(sorted(self.claims, key=lambda claim: place[claim.section]))

    @contextmanager
    def guarded(self, subject: str, claimed: str) -> Iterator[None]:
        """Whatever a stranger's facts make go wrong inside becomes a claim that is contradicted.

        Except where a bound is beyond what is computed here: that contradicts nothing.
        """
        try:
            yield
        except CertificationError as error:
            self.undecided(subject, claimed, str(error))
        except PrivaggError as error:
            self.contradicted(subject, claimed, str(error))
        except MALFORMED as error:
            self.contradicted(subject, claimed, f"the facts are malformed ({type(error).__name__})")


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
        """True where nothing is contradicted; the least that a reader may ask for."""
        return not self.of(Verdict.CONTRADICTED)

    def of(self, verdict: Verdict) -> tuple[Claim, ...]:
        """The claims with this verdict."""
        return tuple(claim for claim in self.claims if claim.verdict is verdict)

    @property
    def compared(self) -> int:
        """How many single values were recomputed and compared."""
        decided = (Verdict.PROVED, Verdict.CONTRADICTED)
        return sum(claim.compared for claim in self.claims if claim.verdict in decided)

    def named(self, name: str) -> tuple[Claim, ...]:
        """The claims of this name, or, where it has no section, of this subject in any.

        Raises:
            ConfigError: there is none.
        """
        found = tuple(c for c in self.claims if name in (c.name, c.name.partition("/")[2]))
        if not found:
            known = ", ".join(sorted({claim.name for claim in self.claims}))
            raise ConfigError(f"no claim is called {name[:100]!r}; there are: {known}")
        return found

    def to_json(self) -> dict[str, Any]:
        """For machines; format `privagg-verification/2`."""
        return {
            "format": "privagg-verification/2",
            "kind": self.kind,
            "federation": self.federation,
            "run": self.run,
            "contradicted": not self.holds,
            "compared": self.compared,
            "counts": {verdict.value: len(self.of(verdict)) for verdict in Verdict},
            "claims": [
                {
                    "name": claim.name,
                    "section": claim.section,
                    "subject": claim.subject,
                    "claimed": claim.claimed,
                    "recomputed": claim.recomputed,
                    "verdict": claim.verdict.value,
                    "note": claim.note,
                    "compared": claim.compared,
                    "by": claim.by,
                    "settle": claim.settle,
                }
                for claim in self.claims
            ],
        }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("ε", "epsilon")).strip("-")[:80]
