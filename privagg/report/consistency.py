"""What ledgers must not say of one run: contradictions that each ledger's own rules allow.

A report is made, and verified, from ledgers that tell one story only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from privagg.errors import LedgerError
from privagg.privacy.ledger import Entry
from privagg.privacy.ledger.entries import (
    Aborted,
    Charge,
    Payload,
    Realised,
    Released,
    RunFinished,
    RunStarted,
)


def require_said_once(entries: Iterable[Entry], run: str) -> None:
    """Refuse a coordinator's ledger that begins, ends or releases a run in two different ways.

    Raises:
        LedgerError: names the second entry.
    """
    said: dict[type[Payload], Payload] = {}
    for entry in entries:
        payload = entry.payload
        if isinstance(payload, RunStarted | RunFinished):
            about = payload.run
        elif isinstance(payload, Released):
            about = str(payload.facts.get("run", ""))
        else:
            continue
        first = said.setdefault(type(payload), payload) if about == run else payload
        if first.to_json() != payload.to_json():
            raise LedgerError(
                f"entry {entry.index} of the coordinator's ledger says {payload.kind!r} of run "
                f"{run!r} again, with other contents"
            )


def require_charged(
    site: str,
    charges: Iterable[Charge],
    run: str,
    survivors: Mapping[tuple[int, int], Sequence[str]],
) -> None:
    """Refuse a site's ledger that holds no charge for a sum that the site's contribution is in.

    Args:
        site: its name.
        charges: to the data set and unit that the plan names.
        run: the run.
        survivors: (round, attempt) -> contributors of the opened sum.

    Raises:
        LedgerError: names the first such round.
    """
    charged = {(charge.round, charge.attempt) for charge in charges if charge.run == run}
    for (number, attempt), names in sorted(survivors.items()):
        if site in names and (number, attempt) not in charged:
            raise LedgerError(
                f"round {number}, attempt {attempt}: {site!r} contributed to the opened sum, but "
                "its ledger charged its data set nothing for it"
            )


def require_one_ending(site: str, entries: Iterable[Entry], run: str) -> None:
    """Refuse a site's ledger in which an attempt came to nothing after it had been opened.

    The other order is honest: that it stopped was a claim of the coordinator's, which the key
    holder's statement then overrode.

    Args:
        site: its name.
        entries: of its ledger, in order.
        run: the run.

    Raises:
        LedgerError: names the attempt.
    """
    opened: set[str] = set()
    for payload in (entry.payload for entry in entries):
        if isinstance(payload, Realised):
            opened.add(payload.attempt_subject)
        if (
            isinstance(payload, Aborted)
            and payload.run == run
            and payload.attempt_subject in opened
        ):
            raise LedgerError(
                f"round {payload.round}, attempt {payload.attempt}: the ledger of {site!r} "
                "records it as opened, and after that as aborted"
            )
