"""A round's attachments at whoever adds, and the unmasking of a sum by what sites release.

Holds public parameters and what sites sent; no key. Whoever contradicts its own signed commitments
is found here, by place:

* a released share that does not fit its dealer's tag: the releasing site, unless it shows by the
  sealing key that the dealer sealed another share than it tagged;
* shares that fit their tags and give no seed of the commitment: the dealer;
* shares under seals that more sites cannot open than may lie: the dealer.

Two sites whose commitments to their common seed differ are told together: one of them lies, and no
signature says which. As few as can be are left out (`contradictions`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from privagg.errors import CiphertextError, PrivaggError
from privagg.kernels.packed_sums import PackedSum
from privagg.secure import facts as fact
from privagg.secure.masked import attachments as attached
from privagg.secure.masked.attachments import Attachments
from privagg.secure.masked.contradictions import fewest_to_leave_out, without
from privagg.secure.masked.graph import Graph
from privagg.secure.masked.releases import read_release, wanted_seeds
from privagg.secure.masked.rule import Rule
from privagg.secure.masked.sharing import SEED_BYTES, combine, factors_at_zero
from privagg.secure.masked.streams import add_masks
from privagg.secure.masked.widths import layout_of
from privagg.secure.scheme import Buffer, Occasion, Recovery, Requirement, Unmasked


class MaskedRecovery(Recovery):
    """One attempt's attachments and unmasking.

    Args:
        requirement: of the plan.
        rule: who must agree.
        occasion: run, round, attempt, and who is asked.

    Raises:
        CohortError: a number of members that the rule is not for.
    """

    def __init__(self, requirement: Requirement, rule: Rule, occasion: Occasion) -> None:
        self._requirement, self._layout = requirement, layout_of(requirement)
        self._graph = Graph(rule, occasion)
        self._taken: dict[int, Attachments] = {}
        self._came: dict[int, Attachments] = {}
        self._against: dict[int, set[int]] = {}
        self._refused: set[int] = set()
        self._failed: set[int] = set()
        self._left_out: set[int] = set()

    def add(self, site: str, attachments: Buffer) -> None:
        """Take a site's attachments; see `Recovery.add`."""
        graph, place = self._graph, self._graph.place(site)
        if place in self._taken:
            raise CiphertextError(f"attachments of {site!r} were taken already")
        total = attached.size(graph.rule.neighbours)
        made = Attachments.from_bytes(attachments, place, graph.neighbours[place], total)
        if self._came.get(place, made) != made:
            raise CiphertextError(f"{site!r} attached something else than when it was asked before")
        against = {
            other
            for other, commitment in made.pairs.items()
            if other in self._came and self._came[other].pairs[place] != commitment
        }
        self._came[place] = made
        for other in against:
            self._against.setdefault(place, set()).add(other)
            self._against.setdefault(other, set()).add(place)
        if wrong := against & self._taken.keys():
            self._refused.add(place)
            raise CiphertextError(
                f"{site!r} and {self._name(min(wrong))!r} commit to different seeds for the mask "
                "that they have in common: one of the two broke the protocol, or they were "
                "shown different keys or members"
            )
        self._taken[place] = made

    def leave_out(self, summed: Collection[str], failures: Mapping[str, int]) -> dict[str, str]:
        """See `Recovery.leave_out`: an honest site's seed differs at dishonest ones alone.

        Where none may collude, one may be dishonest all the same, and contradicts everybody.
        """
        most = self._graph.rule.liars
        missing = self._came.keys() - {self._graph.place(name) for name in summed}
        self._failed |= missing - self._refused - self._left_out
        lies = {place for place, others in self._against.items() if len(others) > most}
        left_out = self._failed | lies
        places = self._graph.places
        failed = {places[site]: times for site, times in failures.items() if site in places}
        left_out |= fewest_to_leave_out(without(self._against, left_out), failed)

        def goes_first(gone: Collection[int]) -> tuple[int, int]:
            return -len(gone), sum(failed.get(place, 0) for place in gone)

        if goes_first(left_out) <= goes_first(missing):
            return {}
        self._left_out = left_out
        self._taken.clear()
        self._refused.clear()
        return {self._name(place): self._why(place, lies) for place in sorted(left_out)}

    def _why(self, place: int, lies: set[int]) -> str:
        if place in lies:
            return "it attached what more sites contradict than may collude"
        if place in self._failed:
            return "its upload was not taken, or not sent again, after its attachments had come"
        return "it and others contradict each other; with the fewest left out, all others agree"

    def require_list(self, listed: Sequence[str]) -> None:
        """Refuse a list that the rule does not allow; see `Recovery.require_list`."""
        self._graph.require_list(listed)

    def needs_consent(self, listed: Sequence[str]) -> bool:
        """Whether the listed sites agree first: where one is missing, or always by the rule."""
        full = len(listed) == len(self._graph.occasion.members)
        return self._graph.rule.always_consents or not full

    def packets(self, site: str, listed: Sequence[str]) -> bytes:
        """For each listed neighbour, in order: the tags of this site's shares, and the shares."""
        place, places = self._graph.place(site), self._graph.require_list(listed)
        dealers = [dealer for dealer in self._graph.dealers(place, places) if dealer != place]
        return b"".join(self._of(d).tags[place] + self._of(d).sealed[place] for d in dealers)

    def unmask(
        self, total: Buffer, listed: Sequence[str], releases: Mapping[str, Buffer]
    ) -> Unmasked:
        """Take the masks off a sum; see `Recovery.unmask`.

        Raises:
            CohortError: a list that the rule does not allow.
            CiphertextError: a total of another size, or a listed site without attachments.
        """
        places = self._graph.require_list(listed)
        summed = PackedSum(self._layout)
        if memoryview(total).nbytes != summed.input_bytes or summed.add([total])[0] is not None:
            raise CiphertextError(
                f"the sum is no packed integer of {summed.input_bytes} bytes whose unused top bits "
                "are 0"
            )
        opening = _Opening(self._graph, {place: self._of(place) for place in places})
        for site, release in releases.items():
            opening.take(self._graph.place(site), release)
        masks = opening.masks()
        wrong = {self._name(place): why for place, why in opening.wrong.items()}
        if opening.lacks is not None:
            name, why = self._name(opening.lacks[0]), opening.lacks[1]
            doubted = [self._name(place) for place in opening.doubted(opening.lacks[0])]
            return Unmasked(None, f"a seed of {name!r} stays closed: {why}", wrong, doubted)
        lanes = summed.lanes()
        add_masks(lanes, masks)
        values = self._layout.unpack(self._layout.to_bytes(lanes))
        try:
            fact.check_opened(values, self._requirement, len(places))
        except PrivaggError as error:
            return Unmasked(None, str(error), wrong)
        return Unmasked(values, "", wrong)

    def _of(self, place: int) -> Attachments:
        if place not in self._taken:
            raise CiphertextError(f"{self._name(place)!r} is listed and sent no attachments")
        return self._taken[place]

    def _name(self, place: int) -> str:
        return self._graph.occasion.members[place]


class _Opening:
    """Good shares as they come in, and who broke the protocol.

    Args:
        graph: the occasion's.
        taken: listed site's place -> its attachments.
    """

    def __init__(self, graph: Graph, taken: dict[int, Attachments]) -> None:
        self._graph, self._taken = graph, taken
        self._listed = set(taken)
        self._wanted = {d: wanted_seeds(graph, d, self._listed) for d in sorted(taken)}
        self._pieces: dict[int, dict[int, bytes]] = {dealer: {} for dealer in self._wanted}
        self._unopened: dict[int, set[int]] = {dealer: set() for dealer in self._wanted}
        self.wrong: dict[int, str] = {}
        self.lacks: tuple[int, str] | None = None

    def take(self, site: int, data: Buffer) -> None:
        """Check a listed site's release, and keep the shares in it that fit their tags."""
        if site not in self._listed:
            self.wrong[site] = "it released for a list that it is not on"
            return
        try:
            held = read_release(data, self._graph, site, self._wanted)
        except CiphertextError as error:
            self.wrong[site] = str(error)
            return
        for dealer, entry in held.items():
            if entry.complains:
                self._judge(site, dealer, entry.data)
            elif not entry.data:
                self._note_unopened(site, dealer)
            elif attached.tags_of(entry.data) == self._tags(dealer, site):
                self._pieces[dealer][site] = entry.data
            else:
                self.wrong[site] = "it released another share than it was dealt"

    def doubted(self, dealer: int) -> set[int]:
        """A dealer and those who say that they cannot open its shares; nobody where none does."""
        unopened = self._unopened[dealer]
        return unopened | {dealer} if unopened else set()

    def masks(self) -> list[tuple[bytes, int]]:
        """Every mask in the sum of the listed, with the sign that takes it off.

        Seeds that were dealt to the same points are combined together, with the same factors.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        threshold = self._graph.rule.threshold
        for dealer, pieces in self._pieces.items():
            if len(pieces) < threshold:
                self.lacks = dealer, f"{len(pieces)} good shares of {threshold} were released"
                return []
            points = self._graph.points(dealer)
            at = tuple(points[site] for site in sorted(pieces)[:threshold])
            groups.setdefault(at, []).append(dealer)
        found = []
        for at, dealers in groups.items():
            for dealer, seeds in self._combined(at, dealers).items():
                found += self._masks_of(dealer, seeds)
        return found

    def _judge(self, site: int, dealer: int, key: bytes) -> None:
        """A complaint stands where the seal opens to shares that do not fit their tags."""
        if self._taken[dealer].convicts(site, key):
            self.wrong[dealer] = "it sealed other shares than it had tagged"
        else:
            self.wrong[site] = "it complained of shares without cause"

    def _note_unopened(self, site: int, dealer: int) -> None:
        """What an honest dealer seals every honest site opens, as both derive one key."""
        self._unopened[dealer].add(site)
        if len(self._unopened[dealer]) > self._graph.rule.liars:
            self.wrong[dealer] = "it sealed shares that more sites cannot open than may collude"

    def _tags(self, dealer: int, holder: int) -> bytes:
        """The tags that a dealer signed of a holder's shares of the wanted seeds, joined."""
        tags, size, wanted = self._taken[dealer].tags[holder], attached.TAG_BYTES, self._wanted
        if len(wanted[dealer]) == 1:  # the own seed's alone, wherever no neighbour is gone
            return tags[:size]
        return b"".join([tags[size * i : size * (i + 1)] for i in wanted[dealer]])

    def _combined(self, at: tuple[int, ...], dealers: list[int]) -> dict[int, list[bytes]]:
        """The wanted seeds of dealers whose shares lie at these points."""
        held = {dealer: sorted(self._pieces[dealer])[: len(at)] for dealer in dealers}
        rows = b"".join(
            self._pieces[dealer][held[dealer][number]]
            for number in range(len(at))
            for dealer in dealers
        )
        shares = np.frombuffer(rows, dtype=np.uint8).reshape(len(at), -1, SEED_BYTES)
        seeds = iter(combine(shares, factors_at_zero(at)))
        return {d: [next(seeds).tobytes() for _ in self._wanted[d]] for d in dealers}

    def _masks_of(self, dealer: int, seeds: list[bytes]) -> list[tuple[bytes, int]]:
        """A dealer's masks in the sum, once every seed is what it committed to."""
        made, found = self._taken[dealer], []
        for number, seed in zip(self._wanted[dealer], seeds, strict=True):
            other = None if number == 0 else self._graph.neighbours[dealer][number - 1]
            if attached.commit(seed) != (made.own if other is None else made.pairs[other]):
                self.wrong[dealer] = "it dealt shares of another seed than it had committed to"
                self.lacks = dealer, "its shares give another than it had committed to"
            found.append((seed, -1 if other is None or dealer < other else 1))
        return found
