"""How many sites must agree before a masked sum opens, and how many may collude or vanish.

n sites are asked, m of them at least must be in a sum, c of them may pool with the aggregator all
that they know and say whatever suits them. A plan is taken where **2 m > n + c**: a site consents
to one list of contributors a round, so that two lists with m consents each would take 2 m
consents, of which n - c honest sites give one each and c colluders two. So one list is opened, and
no other (proofs/masking.md).

A seed opens with t shares. Where every opening asks for consents, t = c + 1: colluders alone never
have that many, and honest sites release for the one list. Where a full list is opened without
consents, t = n - m + c + 1: if another list ever got m consents, at least m - c honest sites are
bound to it, and the n - m that may be left, with the colluders, have one share too few.

2 m > n + c is also t <= m, so that the sites which consent can always open.

Source: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning",
CCS 2017, section 6 (there t alone carries the rule; consents replace its consistency check).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from privagg.errors import ParameterError
from privagg.secure.facts import MAX_ADDENDS, require_keys
from privagg.secure.masked.ring import FULL_UP_TO, enough_neighbours

MAX_HOLDERS = 255
"""Holders of shares of one seed: points other than zero of the field of the shares."""


@dataclass(frozen=True)
class Rule:
    """Who must agree before a sum opens; construction fails where the rule does not hold.

    Args:
        asked: n, sites asked in a round, at most.
        least: m, fewest sites in a sum.
        colluders: c, sites that may collude with the aggregator.
        neighbours: k, sites that a site has masks in common with; n - 1 for all the others.
        always_consents: whether a full list, too, needs m consents.

    Raises:
        ParameterError: which numbers contradict each other, and what to change.
    """

    asked: int
    least: int
    colluders: int
    neighbours: int
    always_consents: bool

    def __post_init__(self) -> None:
        self._check_ranges()
        n, m, c, k = self.asked, self.least, self.colluders, self.neighbours
        if m - c < 2:
            raise ParameterError(
                f"a sum of {m} contributions of which {c} may be colluders' shows a single honest "
                "site's; lower dropouts or colluders, or ask more sites"
            )
        if 2 * m <= n + c:
            raise ParameterError(
                f"of {n} sites with {c} colluders, two lists of {m} could both be opened: at least "
                f"{(n + c) // 2 + 1} must be in a sum; allow at most {n - (n + c) // 2 - 1} "
                "dropouts, or fewer colluders"
            )
        if not self.is_full and not self.always_consents:
            raise ParameterError("where sites have few neighbours, every opening needs consents")
        if not self.is_full and (k % 2 or k <= c):
            raise ParameterError(
                f"{c} colluders can cut off a site with {k} neighbours; an even number above {c} "
                "is needed"
            )
        if k + 1 > MAX_HOLDERS:
            raise ParameterError(
                f"each seed would be shared among {k + 1} sites, at most {MAX_HOLDERS} can hold "
                "shares; lower dropouts or colluders, or ask fewer sites"
            )

    def _check_ranges(self) -> None:
        limits = {
            "asked": (2, MAX_ADDENDS),
            "least": (2, self.asked),
            "colluders": (0, self.asked),
            "neighbours": (1, MAX_ADDENDS),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ParameterError(
                    f"{name} must be a whole number in [{low}, {high}], not {value!r}"
                )
        if type(self.always_consents) is not bool:
            raise ParameterError(
                f"always_consents must be true or false, not {self.always_consents!r}"
            )
        if self.neighbours > self.asked - 1:
            raise ParameterError(f"{self.neighbours} neighbours are more than there are sites")

    @classmethod
    def choose(
        cls, asked: int, least: int, colluders: int, *, always_consents: bool = False
    ) -> Rule:
        """The rule with the fewest neighbours that lose a round less often than 1 in 2^30.

        All are neighbours up to `FULL_UP_TO` sites; above, every opening asks for consents.

        Args:
            asked, least, colluders: as for the class.
            always_consents: ask for consents where a full list would not need them.

        Raises:
            ParameterError: as the class.
        """
        if not all(type(number) is int for number in (asked, least, colluders)):
            return cls(asked, least, colluders, 1, always_consents)  # says which is wrong
        few = full = asked - 1
        if asked > FULL_UP_TO and 0 <= colluders < least <= asked:
            few = enough_neighbours(asked, asked - least, colluders)
        if few < full:
            return cls(asked, least, colluders, few, True)
        return cls(asked, least, colluders, full, always_consents)

    @property
    def is_full(self) -> bool:
        """Whether every site has masks in common with every other."""
        return self.neighbours == self.asked - 1

    @property
    def threshold(self) -> int:
        """t, shares that open a seed."""
        spared = 0 if self.always_consents else self.asked - self.least
        return spared + self.colluders + 1

    @property
    def readers(self) -> int:
        """Sites that would have to collude, with the aggregator, to read one site's upload: c + 1.

        Where consents are always asked, so many hold t shares of all its seeds. Where not, so many
        consent to a list without it and have, with the n - m sites that are shown the full list,
        t shares of its own seed.
        """
        return self.colluders + 1

    @property
    def liars(self) -> int:
        """Sites that may say what is not so: where none may collude, one all the same."""
        return max(1, self.colluders)

    def may_be_missing(self) -> dict[str, int]:
        """How many sites, in all, may be missing by each stage of a round that still opens.

        On a ring the number at the release holds but for a chance of 2^-30, see `ring`; on a full
        graph whoever is missing.

        Returns:
            `list`: when the contributors are listed. `consent`: when they have to consent.
            `release`: when they release.
        """
        by_list = self.asked - self.least
        by_release = self.asked - self.threshold if self.is_full else by_list
        return {"list": by_list, "consent": by_list, "release": by_release}

    @classmethod
    def from_dict(cls, facts: Any) -> Rule:
        """Rebuild a rule (untrusted input).

        Raises:
            ParameterError: not exactly the known fields, or a rule that does not hold.
        """
        known = {field.name for field in fields(cls)}
        require_keys(facts, known, "rule of masked sums")
        return cls(**{name: facts[name] for name in known})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready facts."""
        return {
            "asked": self.asked,
            "least": self.least,
            "colluders": self.colluders,
            "neighbours": self.neighbours,
            "always_consents": self.always_consents,
        }
