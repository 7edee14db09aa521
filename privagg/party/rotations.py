"""What a party's own ledger says of its new key, before the others believe the key on its card.

`privagg ledger rotate` writes the new key into the ledger, under the old key's and the new key's
signatures. Two signatures on a checkpoint alone would prove nothing: anybody can add one of its own
to a checkpoint that the old key once signed. So the whole exported ledger is replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privagg.errors import DeploymentError, LedgerTamperedError
from privagg.party.cards import Card
from privagg.party.folder import PartyFolder
from privagg.privacy.ledger import Bundle, CheckpointKeeper, Entry, Replay, Verifier
from privagg.privacy.ledger.entries import KeyRotated
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX


@dataclass(frozen=True)
class NewKey:
    """A party whose card carries another identity key than the one believed so far.

    Args:
        party: whose.
        old, new: Ed25519 public keys (hex).
        entries: the entries of its ledger that lead from the old key to the new one, oldest first;
            none where no export of its ledger was given.
        kept: how many checkpoints that this party kept of that ledger the export was found to hold.
    """

    party: str
    old: str
    new: str
    entries: tuple[Entry, ...] = ()
    kept: int = 0

    @property
    def words(self) -> str:
        """What is known of the change, for whoever decides whether to believe it."""
        if not self.entries:
            return (
                f"{self.party}: no ledger was given, so its card alone says that the key is its "
                "own, and nothing that the old key's holder agreed; ask for `privagg ledger "
                "export` and give it with --ledger, or ask them in the call"
            )
        told = "; ".join(_told(entry) for entry in self.entries)
        return (
            f"{self.party}: its ledger names the new key under the old key's signature ({told}); "
            f"{self.kept} checkpoints of it that were kept here are in it"
        )


def _told(entry: Entry) -> str:
    assert isinstance(entry.payload, KeyRotated)
    return f"entry {entry.index}, {entry.time}, {entry.payload.who!r}: {entry.payload.why!r}"


def new_keys(
    folder: PartyFolder, cards: Iterable[Card], exports: Sequence[Path] = ()
) -> tuple[NewKey, ...]:
    """The parties whose identity key changes by these cards, with what their ledgers say of it.

    Args:
        folder: of the party that is about to join again.
        cards: everybody's.
        exports: ledgers as `privagg ledger export` writes them.

    Raises:
        DeploymentError: an export is of a party whose key does not change, or its ledger does not
            lead from the key believed so far to the one on the card.
        LedgerError: an export cannot be read.
        LedgerTamperedError: an export does not verify, or lacks a checkpoint that is kept here.
    """
    held = folder.pins().roster if folder.pins_file.exists() else {}
    changed = {
        card.party: NewKey(card.party, held[card.party], card.identity)
        for card in cards
        if held.get(card.party, card.identity) != card.identity
    }
    for path in exports:
        bundle = Bundle.read(path)
        replayed = bundle.replay()
        party = _party_of(replayed, path)
        if party not in changed:
            raise DeploymentError(
                f"{path} is the ledger of {party!r}, whose identity key is the same on its card; "
                f"it is needed for {', '.join(changed) or 'nobody'}"
            )
        kept = _kept(folder, ORIGIN_PREFIX + party)
        for note in kept:
            replayed.check_history(note)
        entries = _leading(changed[party], bundle, replayed, path)
        changed[party] = replace(changed[party], entries=entries, kept=len(kept))
    return tuple(changed.values())


def _party_of(replayed: Replay, path: Path) -> str:
    origin = replayed.state.origin
    if not origin.startswith(ORIGIN_PREFIX):
        raise LedgerTamperedError(f"{path} is a log named {origin[:100]!r}, no party's ledger")
    return origin.removeprefix(ORIGIN_PREFIX)


def _leading(change: NewKey, bundle: Bundle, replayed: Replay, path: Path) -> tuple[Entry, ...]:
    """The entries that lead from the old key to the new one, which is the ledger's last."""
    had = [verifier for _, verifier in replayed.verifiers]
    old, new = (_verifier(change.party, key) for key in (change.old, change.new))
    if old not in had or had[-1] != new:
        raise DeploymentError(
            f"the ledger of {change.party!r} in {path} does not lead from the key believed so far "
            f"({change.old[:16]}…) to the one on its card ({change.new[:16]}…); ask "
            f"{change.party} whether it changed its key (`privagg ledger rotate`)"
        )
    starts = [size for size, _ in replayed.verifiers[had.index(old) + 1 :]]
    return tuple(Entry.parse(bundle.bodies[size - 1]) for size in starts)


def _verifier(party: str, key: str) -> Verifier:
    return Verifier.of(
        ORIGIN_PREFIX + party, Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    )


def _kept(folder: PartyFolder, origin: str) -> list[str]:
    """Checkpoints of a ledger that this party kept, in its own ledger or beside it."""
    stores = (folder.checkpoints, folder.opener_checkpoints, folder.ledger)
    held = [CheckpointKeeper.read(store) for store in stores if store.exists()]
    return [note for keeper in held for note in keeper.notes(origin)]
