"""What the coordinator remembers of every site's ledger, so that no history is rewritten unseen.

The owner of a ledger could sign a whole new history. It cannot make the coordinator forget: each
upload carries the site's signed checkpoint and a proof that it extends the one kept before.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privagg.errors import UnknownPartyError
from privagg.identity import Roster
from privagg.messages import Upload
from privagg.privacy.ledger import Checkpoint, CheckpointKeeper, Verifier
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX


class CheckpointWatch:
    """Keeps the checkpoints that uploads carry and refuses the ones that do not extend them.

    Args:
        keeper: durable store of kept checkpoints.
        roster: identity keys of the sites; a site signs its ledger with its identity key.
    """

    def __init__(self, keeper: CheckpointKeeper, roster: Roster) -> None:
        self._keeper = keeper
        self._roster = roster

    def kept_sizes(self, sites: Sequence[str]) -> dict[str, int]:
        """Entries of each site's ledger at the checkpoint kept last; absent where none is kept."""
        found = {}
        for site in sites:
            note = self._keeper.latest(ORIGIN_PREFIX + site)
            if note is not None:
                found[site] = Checkpoint.parse(note).size
        return found

    def keep(self, upload: Upload, *, since: int | None) -> None:
        """Keep an upload's checkpoint, once it extends the one that the round told the site.

        Args:
            upload: a verified upload.
            since: size of the kept checkpoint that the proof starts from; None where none was.

        Raises:
            LedgerError: the upload lacks the proof that is needed.
            LedgerTamperedError: forged, rolled back or forked; the ledger's history was rewritten.
            UnknownPartyError: no key is pinned for the sender.
        """
        if upload.sender not in self._roster.keys:
            raise UnknownPartyError(f"no key is pinned for {upload.sender!r}")
        raw = bytes.fromhex(self._roster.keys[upload.sender])
        origin = ORIGIN_PREFIX + upload.sender
        self._keeper.keep(
            origin,
            upload.checkpoint,
            verifier=Verifier.of(origin, Ed25519PublicKey.from_public_bytes(raw)),
            proof=[bytes.fromhex(step) for step in upload.consistency],
            since=since,
        )
