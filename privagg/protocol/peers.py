"""What a party remembers of the sites' ledgers, so that no history is rewritten unseen.

The owner of a ledger could sign a whole new history. It cannot make the others forget: each upload
carries the site's signed checkpoint and proofs that it extends those that coordinator, key holder
and the other sites keep. Each of them holds the next upload against its own memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from privagg.errors import LedgerError, UnknownPartyError
from privagg.identity.keys import Roster
from privagg.privacy.ledger.checkpoint import Verifier
from privagg.privacy.ledger.keeper import CheckpointKeeper, Shown
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX
from privagg.protocol.messages import Upload

Kept = dict[str, tuple[int, ...]]
"""Site -> sizes of the kept checkpoints of its ledger that its next upload must extend."""


class PeerCheckpoints:
    """The sites' checkpoints as one party keeps them.

    Args:
        keeper: durable store of kept checkpoints; of this party alone.
        roster: identity keys of the sites; a site signs its ledger with its identity key.
    """

    def __init__(self, keeper: CheckpointKeeper, roster: Roster) -> None:
        self._keeper = keeper
        self._roster = roster

    def kept_sizes(self, sites: Iterable[str]) -> Kept:
        """What the next upload of each site must extend; absent where nothing is kept."""
        return _by_site(self._keeper.heads(ORIGIN_PREFIX + site for site in sites))

    def notes(self, site: str) -> list[str]:
        """The kept checkpoints of a site's ledger that any later state of it must hold."""
        return self._keeper.notes(ORIGIN_PREFIX + site)

    def report_kept_sizes(self, run: str, sites: Iterable[str]) -> Kept:
        """`kept_sizes`, durably, as what the next uploads of this run must prove to extend."""
        return _by_site(self._keeper.tell(run, [ORIGIN_PREFIX + site for site in sites]))

    def reported(self, run: str, sites: Sequence[str]) -> Kept:
        """What was told last in this run; where nothing (any more), what is kept now."""
        told = self._keeper.told(run)
        return self.kept_sizes(sites) if told is None else _by_site(told)

    def keep(
        self, uploads: Sequence[Upload], since: Mapping[str, tuple[int, ...]]
    ) -> dict[str, LedgerError]:
        """Keep the checkpoints of verified uploads, where they extend what they have to.

        Args:
            uploads: with their signatures verified.
            since: site -> sizes of the kept checkpoints that its upload has to extend; absent where
                none was kept.

        Returns:
            Site -> why its checkpoint was not kept: forged, rolled back, forked, or unproved.

        Raises:
            UnknownPartyError: no key is pinned for a sender.
        """
        shown = [self._shown(upload, since.get(upload.sender)) for upload in uploads]
        problems = self._keeper.keep_all(shown)
        return {origin.removeprefix(ORIGIN_PREFIX): error for origin, error in problems.items()}

    def keep_unproved(self, uploads: Sequence[Upload]) -> None:
        """Keep checkpoints of verified uploads that lack their proof: a later one must extend both.

        One that cannot be kept, because too many wait already, is left.
        """
        if uploads:
            self._keeper.keep_all([self._shown(upload, ()) for upload in uploads])

    def require(self, uploads: Sequence[Upload]) -> None:
        """Keep every upload's checkpoint, or name the first site whose history was rewritten.

        Raises:
            LedgerError, LedgerTamperedError: see `keep`.
        """
        sites = [upload.sender for upload in uploads]
        reported = self.reported(uploads[0].run, sites) if uploads else {}
        for site, error in self.keep(uploads, reported).items():
            raise type(error)(f"the ledger of {site!r}: {error}")

    def _shown(self, upload: Upload, since: tuple[int, ...] | None) -> Shown:
        if upload.sender not in self._roster.keys:
            raise UnknownPartyError(f"no key is pinned for {upload.sender!r}")
        origin = ORIGIN_PREFIX + upload.sender
        proofs = {
            proof.since: [bytes.fromhex(step) for step in proof.path]
            for proof in upload.consistency
        }
        return Shown(
            origin=origin,
            note=upload.checkpoint,
            verifier=_verifier(origin, self._roster.keys[upload.sender]),
            proofs=proofs,
            since=since,
        )


@lru_cache(maxsize=4096)
def _verifier(origin: str, public_hex: str) -> Verifier:
    """What holds the signatures under a ledger against its owner's key."""
    return Verifier(origin, bytes.fromhex(public_hex))


def _by_site(sizes: Mapping[str, tuple[int, ...]]) -> Kept:
    return {origin.removeprefix(ORIGIN_PREFIX): found for origin, found in sizes.items()}
