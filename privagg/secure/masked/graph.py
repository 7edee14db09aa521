"""One occasion's sites by place: who has masks in common, and which lists may be opened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

from privagg.errors import CohortError
from privagg.secure.masked.attachments import holders
from privagg.secure.masked.ring import fewest_that_cut, neighbours_of
from privagg.secure.masked.rule import Rule
from privagg.secure.scheme import Occasion


class Graph:
    """The sites of an occasion.

    Args:
        rule: of the plan.
        occasion: names the members, in roster order; of no more sites than the rule is for.

    Raises:
        CohortError: fewer members than a sum needs, more than the rule is for, or one named twice.
    """

    def __init__(self, rule: Rule, occasion: Occasion) -> None:
        self.rule, self.occasion = rule, occasion
        members = occasion.members
        if not rule.least <= len(members) <= rule.asked or len(set(members)) != len(members):
            raise CohortError(
                f"{len(members)} sites are asked; the rule is for {rule.least} to {rule.asked} "
                "different ones"
            )
        self.places = {name: place for place, name in enumerate(members)}

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """Places of each member's neighbours, in order."""
        return neighbours_of(self.occasion.members, self.rule.neighbours, self.occasion.run)

    def place(self, site: str) -> int:
        """The place of a member.

        Raises:
            CohortError: not a member.
        """
        if site not in self.places:
            raise CohortError(f"{site!r} is not asked in this attempt")
        return self.places[site]

    def points(self, dealer: int) -> dict[int, int]:
        """Holder's place -> the point, from 1, at which it holds a member's shares."""
        held = holders(dealer, self.neighbours[dealer])
        return {place: number + 1 for number, place in enumerate(held)}

    def dealers(self, holder: int, listed: Collection[int]) -> list[int]:
        """Listed members whose shares a listed member holds, itself among them, in order."""
        return [place for place in holders(holder, self.neighbours[holder]) if place in listed]

    def require_list(self, listed: Sequence[str]) -> set[int]:
        """Places of the listed members.

        Raises:
            CohortError: not members in roster order, fewer than the rule's least, or a list that
                as many of them as may collude could cut in two.
        """
        places = [self.place(name) for name in listed]
        if places != sorted(set(places)):
            raise CohortError("a list of contributors must be in roster order, each of them once")
        if len(places) < self.rule.least:
            raise CohortError(
                f"{len(places)} contributors are listed; at least {self.rule.least} must be in a "
                "sum"
            )
        found = set(places)
        fewest = fewest_that_cut(
            self.occasion.members, self.rule.neighbours, self.occasion.run, found
        )
        if fewest <= self.rule.colluders:
            raise CohortError(
                f"{fewest} of the listed sites could cut the others in two and read the sum of "
                f"either part; {self.rule.colluders} may collude"
            )
        return found
