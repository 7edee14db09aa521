"""The coordinator's memory of every site's ledger, and what it knows of the others' memories.

A round's start asks each site to prove that its ledger extends what anybody keeps of it; so the
coordinator is sent, once a run and with each answer, what key holder and sites keep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from privagg.identity.keys import Roster
from privagg.privacy.ledger import CheckpointKeeper
from privagg.protocol.messages import MAX_PROOFS, Upload
from privagg.protocol.peers import PeerCheckpoints


class CheckpointWatch:
    """Keeps the checkpoints that uploads carry and refuses the ones that do not extend them.

    Args:
        keeper: durable store of kept checkpoints.
        roster: identity keys of the sites; a site signs its ledger with its identity key.
    """

    def __init__(self, keeper: CheckpointKeeper, roster: Roster) -> None:
        self._own = PeerCheckpoints(keeper, roster)
        self._reported: dict[str, dict[str, tuple[int, ...]]] = {}

    def kept_sizes(self, sites: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """What the next upload of each site must extend; absent where nothing is kept."""
        return self._own.kept_sizes(sites)

    def notes(self, site: str) -> list[str]:
        """The kept checkpoints of a site's ledger that any later state of it must hold."""
        return self._own.notes(site)

    def unreported(self, parties: Iterable[str]) -> tuple[str, ...]:
        """The parties that have not yet said what they keep."""
        return tuple(dict.fromkeys(party for party in parties if party not in self._reported))

    def record_kept_sizes(self, party: str, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Note what a party keeps, as it says itself or as follows from what it was sent."""
        self._reported.setdefault(party, {}).update(sizes)

    def doubt(self, party: str) -> None:
        """Forget what a party keeps, so that it is asked anew before the next round."""
        self._reported.pop(party, None)

    def relayed(self, parties: Iterable[str], survivors: Sequence[str]) -> None:
        """Assume that parties keep what they are being sent, until they say what they keep."""
        sizes = self.kept_sizes(survivors)
        for party in parties:
            if party in self._reported:
                self.record_kept_sizes(party, sizes)

    def asked(self, cohort: Sequence[str], opener: str) -> dict[str, tuple[int, ...]]:
        """Site -> every size that its next upload has to prove to extend.

        To the round's own parties: what a site that sits it out keeps is asked for when it is back,
        or thousands of clients would ask for more proofs than an upload holds.
        """
        keepers = [self.kept_sizes(cohort)]
        keepers += [self._reported.get(party, {}) for party in (opener, *cohort)]
        asked = {site: _fair_share([sizes.get(site, ()) for sizes in keepers]) for site in cohort}
        return {site: sizes for site, sizes in asked.items() if sizes}

    def keep(self, uploads: Sequence[Upload], *, since: Mapping[str, tuple[int, ...]]) -> None:
        """Keep checkpoints, once they extend those that the coordinator kept at the round's start.

        Args:
            uploads: verified.
            since: what it kept then.

        Raises:
            LedgerError: an upload lacks the proof that is needed, or its ledger was rolled back.
            LedgerTamperedError: forged or forked; the ledger's history was rewritten.
            UnknownPartyError: no key is pinned for a sender.
        """
        for error in self._own.keep(uploads, since).values():
            raise error


def _fair_share(claims: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The sizes that one upload is asked to prove, at most `MAX_PROOFS`, ascending.

    Anybody may claim to keep anything. So each keeper has its turn, the coordinator first, and
    names in it the size that most others keep too: however many sizes dishonest parties make up,
    with fewer than `MAX_PROOFS` keepers each honest one has at least one of its own asked.

    Args:
        claims: what each keeper says that it keeps of one ledger, most trusted first.
    """
    support = Counter(size for sizes in claims for size in set(sizes))
    waiting = [sorted(set(sizes), key=lambda size: (support[size], size)) for sizes in claims]
    asked: set[int] = set()
    while any(waiting) and len(asked) < MAX_PROOFS:
        first, *others = [sizes.pop() for sizes in waiting if sizes]
        for size in (first, *sorted(others, key=lambda size: -support[size])):
            if len(asked) < MAX_PROOFS:
                asked.add(size)
    return tuple(sorted(asked))
