"""The parties' ledgers: chain, rules, tree, signatures, keys, and whether history is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from privagg.audit.claims import MALFORMED, Findings
from privagg.audit.methods import Methods
from privagg.audit.replayed import ReplayedLedger
from privagg.errors import PrivaggError, UnreadableBundleError
from privagg.privacy.ledger import Checkpoint
from privagg.privacy.ledger.ledger import ORIGIN_PREFIX
from privagg.report.model import LedgerFacts, Report

LEDGER = "ledger: entries, rules, tree, signatures"
HISTORY = "history"
NO_HISTORY = "completeness of history not verifiable: no checkpoint kept by another party was given"


def facts_by_party(report: Report, coordinator: str) -> dict[str, LedgerFacts]:
    """What the report says of each party's ledger."""
    return {
        coordinator: report.coordinator,
        **{site.name: site.ledger for site in report.sites},
    }


def check_ledgers(
    findings: Findings,
    exports: Mapping[str, bytes],
    facts: Mapping[str, LedgerFacts],
    methods: Methods,
) -> dict[str, ReplayedLedger]:
    """Replay every export and hold it against what the report says of it.

    Args:
        findings: gets a claim for each party.
        exports: party -> its ledger's export, not believed.
        facts: party -> what the report says of its ledger.
        methods: the accountants, and what all of this may cost.

    Returns:
        Party -> its ledger, of those that hold.
    """
    held = {}
    # Each ledger may spend an equal share of the work that is left, so none starves the others.
    for place, (party, said) in enumerate(facts.items()):
        findings.section = party
        claimed = f"{said.entries} entries, root {said.root[:16]}"
        if party not in exports:
            findings.contradicted(LEDGER, claimed, "the bundle does not hold this ledger")
            continue
        with methods.work.portion(len(facts) - place), findings.guarded(LEDGER, claimed):
            ledger = ReplayedLedger.parse(
                exports[party],
                methods.certified,
                what=f"the ledger of {party}",
                work=methods.work,
            )
            held[party] = ledger
            recomputed = f"{len(ledger)} entries, root {ledger.root().hex()[:16]}"
            expected = (
                len(ledger), ledger.root().hex(), ledger.checkpoint(), ledger.verifier.encode(),
            )  # fmt: skip
            stated = (said.entries, said.root, said.checkpoint, said.public_key)
            note = "" if stated == expected else "the report describes another ledger than this"
            findings.check(
                LEDGER, claimed, recomputed, stated == expected, note, compared=2 * len(ledger) + 4
            )
    return held


def check_owners(
    findings: Findings,
    ledgers: Mapping[str, ReplayedLedger],
    parties: Mapping[str, str],
    pinned: Mapping[str, str],
) -> None:
    """Whose keys signed: those that the run's roster names, and those the verifier brought along.

    Args:
        findings: gets the claims.
        ledgers: party -> its ledger, replayed.
        parties: party -> identity key, 64 hex digits, as the run's roster has it.
        pinned: the same from a source other than the bundle.
    """
    for party, ledger in ledgers.items():
        findings.section = party
        stated, keys = parties.get(party, "none"), ledger.ever_signed_by
        fits = stated in keys and ledger.owner == party
        origin_fits = ledger.replay.state.origin == ORIGIN_PREFIX + party
        note = "" if fits and origin_fits else "the key was swapped, or it is another's ledger"
        findings.check(
            "signing key is the party's own", stated[:16], keys[-1][:16], fits and origin_fits, note
        )
    for party, key in pinned.items():
        findings.section = party
        if party not in parties:
            findings.contradicted(
                "key you gave", key[:16], f"the run had no party called {party!r}"
            )
            continue
        stated = parties[party]
        note = "" if stated == key else "this is not the key you know: the party was replaced"
        findings.check("key you gave", stated[:16], key[:16], stated == key, note)
    unknown = sorted(set(parties) - set(pinned))
    if unknown:
        findings.section = "bundle"
        findings.undecided(
            "whose keys these are",
            ", ".join(unknown),
            "compare them with keys you got elsewhere, with --key NAME=HEX for each party",
        )


def check_history(
    findings: Findings, ledgers: Mapping[str, ReplayedLedger], kept: Sequence[str]
) -> None:
    """Hold every ledger against the checkpoints kept of it elsewhere.

    Args:
        findings: gets the claims.
        ledgers: party -> its ledger, replayed.
        kept: checkpoints as signed notes, from a source other than the bundle.

    Raises:
        UnreadableBundleError: a note is no checkpoint.
    """
    seen: set[str] = set()
    by_origin = {ledger.replay.state.origin: party for party, ledger in ledgers.items()}
    for note in kept:
        checkpoint = parse_checkpoint(note)
        party = by_origin.get(checkpoint.origin)
        findings.section = party or "bundle"
        claimed = _held(checkpoint.size, checkpoint.root)
        if party is None:
            findings.contradicted(
                HISTORY, claimed, f"no ledger of {checkpoint.origin!r} was found to hold here"
            )
            continue
        seen.add(party)
        with findings.guarded(HISTORY, claimed):
            replay = ledgers[party].replay
            replay.check_history(note)
            found = _held(checkpoint.size, replay.roots[checkpoint.size])
            findings.check(HISTORY, claimed, found, True)
    for party, ledger in ledgers.items():
        if party not in seen:
            findings.section = party
            findings.undecided(HISTORY, f"{len(ledger)} entries", NO_HISTORY)


def _held(size: int, root: bytes) -> str:
    return f"holds the kept checkpoint: {size} entries, root {root.hex()[:16]}"


def parse_checkpoint(note: str) -> Checkpoint:
    """A checkpoint that a verifier brought along.

    Raises:
        UnreadableBundleError: it is none.
    """
    try:
        return Checkpoint.parse(note)
    except (PrivaggError, *MALFORMED) as error:
        raise UnreadableBundleError(f"not a checkpoint: {error}") from error
