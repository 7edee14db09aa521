"""A second opinion on every proven epsilon, by methods that share nothing with the proof.

Three of them, in double precision, by dp-accounting: Renyi orders and a pessimistic privacy-loss
distribution, which must not lie below the proven lower end; and an optimistic privacy-loss
distribution, which must not lie above the proven upper end. Privacy-loss distributions are known
to understate at small delta, where the rounding of their Fourier transform exceeds delta; that is
named and does not count against the proof as long as the Renyi figure agrees.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from privagg.audit.charges import TOLERANCE
from privagg.audit.claims import Findings
from privagg.audit.methods import Methods, Remembering, check_range
from privagg.errors import CertificationError, UnknownEventError, WorkLimitError
from privagg.privacy.events import DpEvent
from privagg.report.accounting import Bounds, accountant_figures
from privagg.report.figures import epsilon_text, lower_text
from privagg.report.model import AccountantFigure, BoundedEvent, Report, SiteReport

NOISY_DELTA = Decimal("1e-9")
"""Below this the optimistic distribution's own rounding decides; it is not consulted."""

_ABOVE = 1 + Decimal("1e-4")
_BELOW = 1 - TOLERANCE


def check_second(findings: Findings, report: Report, methods: Methods) -> None:
    """Hold every epsilon of the report against the independent methods, and peers' figures too.

    Args:
        findings: gets the claims.
        report: whose epsilons are checked.
        methods: the accountants, and what all of this may cost.
    """
    for site in report.sites:
        findings.section = site.name
        _check_rows(findings, "second method: ε charged", (site.committed,), methods)
        _check_rows(findings, "second method: observer matrix", site.guarantees, methods)
        names = [figure.name for figure in site.accountants]
        if len(set(names)) != len(names):
            findings.contradicted(
                "accountants", ", ".join(names)[:200], "one of them stands there twice"
            )
        for figure in site.accountants[1:]:
            _check_peer(findings, site, figure, methods)


def _check_rows(
    findings: Findings, subject: str, rows: Iterable[BoundedEvent], methods: Methods
) -> None:
    asked = {(row.event, row.delta): row for row in rows}
    finite = {place: row for place, row in asked.items() if row.epsilon.is_finite()}
    if not finite:
        findings.check(subject, "ε = ∞", "nothing is claimed", True)
        return
    notes: list[str] = []
    wrong, opinion, beyond = "", "", ""
    for (event, delta), row in finite.items():
        try:
            opinion, fault, note = _opinion(event, delta, row, methods)
        except (CertificationError, UnknownEventError) as error:
            beyond = f"not recomputed: {error}"
            continue
        wrong = wrong or fault
        if note and note not in notes:
            notes.append(note)
    if len(finite) > 1:
        opinion = f"{len(finite)} different events, by three methods"
    row = next(iter(finite.values()))
    claimed = f"{len(finite)} proven intervals"
    if len(finite) == 1:
        claimed = f"ε = {epsilon_text(row.epsilon, 9)}"
    if beyond and not wrong:
        findings.undecided(subject, claimed, beyond)
        return
    findings.check(
        subject, claimed, opinion, not wrong, wrong or "; ".join(notes), compared=len(finite)
    )


def _opinion(
    event: DpEvent, delta: Decimal, row: BoundedEvent, methods: Methods
) -> tuple[str, str, str]:
    """(what the methods say, what contradicts the claim, a remark)."""
    proven = methods.certified.epsilon(event, delta)
    renyi = methods.rdp.epsilon(event, delta).upper
    lower = proven.lower if proven.lower is not None else Decimal(0)
    high, low = methods.pld_upper(event, delta), methods.pld_lower(event, delta)
    opinion = f"RDP {epsilon_text(renyi, 6)}"
    if high is not None and low is not None:
        opinion += f", PLD {lower_text(low, 4)} … {epsilon_text(high, 6)}"
    if renyi < lower * _BELOW:
        return opinion, f"RDP gives {renyi}, below the proven lower end {lower}", ""
    if low is not None and delta >= NOISY_DELTA and low > row.epsilon * _ABOVE:
        return opinion, f"an optimistic PLD gives {low:.9g}, above what is claimed", ""
    if high is not None and high < lower * _BELOW:
        return opinion, "", f"PLD understates here: {high} lies below the proven lower end {lower}"
    return opinion, "", ""


def _check_peer(
    findings: Findings, site: SiteReport, figure: AccountantFigure, methods: Methods
) -> None:
    """Another accountant's figure as recorded: recomputed where this version can."""
    subject = f"{figure.name}'s figure beside it"
    claimed = "none" if figure.epsilon is None else f"ε = {epsilon_text(figure.epsilon, 9)}"
    method = methods.named(figure.name)
    if method is None:
        findings.undecided(subject, claimed, "recorded, not recomputed")
        return
    bounds = Bounds(methods.certified)
    event, delta = site.committed.event, site.committed.delta
    try:
        check_range(event, delta)
        _affordable(method, event, delta)
        _, expected = accountant_figures(event, delta, bounds, (Bounds(method),))
    except (CertificationError, UnknownEventError) as error:
        findings.undecided(subject, claimed, f"recorded, not recomputed: {error}")
        return
    recomputed = expected.epsilon
    opinion = "none" if recomputed is None else f"ε = {epsilon_text(recomputed, 9)}"
    changes: dict[str, object] = {}
    if _differs_in_last_digits(figure.epsilon, recomputed):  # another machine's, in the note too
        changes = {"epsilon": recomputed}
        if figure.note.partition(";")[0] == expected.note.partition(";")[0]:
            changes["note"] = expected.note
    holds = figure.model_copy(update=changes) == expected
    note = "" if holds else "edited, or not what this accountant gives"
    if holds and "understates" in expected.note:
        note = f"a known under-report: {expected.note.partition('; ')[2]}"
    findings.check(subject, claimed, opinion, holds, note)


def _affordable(method: Remembering, event: DpEvent, delta: Decimal) -> None:
    """Have the method asked within the work limit: what it refuses itself belongs to its figure.

    Raises:
        WorkLimitError: it is not asked.
    """
    try:
        method.epsilon(event, delta)
    except WorkLimitError:
        raise
    except (CertificationError, UnknownEventError):
        return


def _differs_in_last_digits(one: Decimal | None, other: Decimal | None) -> bool:
    if one is None or other is None or not (one.is_finite() and other.is_finite()):
        return False
    return one != other and abs(one - other) <= TOLERANCE * other
