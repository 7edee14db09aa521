"""The accountants of a verification: the certified one, and methods independent of it.

Events come from strangers, so each is held to a range in which computing takes bounded time before
any accountant sees it; beyond it nothing is recomputed, and the claim stays open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from privagg.audit.work import Work, distribution_price, least_price, renyi_price
from privagg.errors import CertificationError, WorkLimitError
from privagg.privacy.accountant import Accountant, EpsilonBound
from privagg.privacy.accountants import (
    CertifiedAccountant,
    PldAccountant,
    RdpAccountant,
    float_down,
    float_up,
    laplace_distribution,
)
from privagg.privacy.certified.work import limited
from privagg.privacy.events import DpEvent, LaplaceMechanism, Mechanism, Term

SMALLEST_NOISE_MULTIPLIER = Decimal("0.1")
LARGEST_NOISE_MULTIPLIER = Decimal(10**4)
SMALLEST_RATE, SMALLEST_DELTA = Decimal("1e-9"), Decimal("1e-15")
LARGEST_COUNT = 10**7
MOST_TERMS = 12
"""Distinct mechanisms of an event that is bounded as it stands; one of more is enclosed."""

MOST_RECOMPUTED = 64
"""Distinct mechanisms of an event in a report that is made again to the last digit."""

MOST_MERGED = 1000
LARGEST_PLD_EPSILON = Decimal(60)
PLD_INTERVAL = 1e-3
PEER_INTERVAL = 1e-4
"""Of the second method; coarser than the recorded peer's, which keeps a bound a bound."""


def check_range(event: DpEvent, delta: Decimal) -> None:
    """Refuse an event that would take unbounded time.

    Raises:
        CertificationError: noise, rates, counts, delta or number of terms beyond what is
            recomputed.
    """
    if len(event.terms) > MOST_RECOMPUTED:
        raise CertificationError(
            f"an event of {len(event.terms)} different mechanisms is enclosed, not recomputed"
        )
    if not _in_range(event, delta):
        raise CertificationError(
            f"only events with noise multipliers from {SMALLEST_NOISE_MULTIPLIER} to "
            f"{LARGEST_NOISE_MULTIPLIER}, sampling rates from {SMALLEST_RATE}, up to "
            f"{LARGEST_COUNT} rounds and δ from {SMALLEST_DELTA} are recomputed"
        )


def is_enclosed(event: DpEvent, delta: Decimal) -> bool:
    """Whether `Methods.bracket` bounds other events instead of this one, from above and below."""
    return len(event.terms) > MOST_TERMS or not _in_range(event, delta)


def _in_range(event: DpEvent, delta: Decimal) -> bool:
    private = [term for term in event.terms if term.mechanism.kind != "non-private"]
    return (
        all(
            isinstance(each.mechanism, LaplaceMechanism)
            or (
                SMALLEST_NOISE_MULTIPLIER
                <= each.mechanism.noise_multiplier
                <= LARGEST_NOISE_MULTIPLIER
                and each.mechanism.sampling_rate >= SMALLEST_RATE
            )
            for each in private
        )
        and sum(term.count for term in private) <= LARGEST_COUNT
        and delta >= SMALLEST_DELTA
    )


def dominated(event: DpEvent) -> DpEvent:
    """An event of few mechanisms, in range, that `event` dominates.

    Merged downward; more noise is a post-processing of less, and so is leaving out a round.

    Raises:
        CertificationError: the event has a mechanism without a guarantee.
    """
    if not event.is_private:
        raise CertificationError("an event without a guarantee has no bound")
    told = [
        (mechanism, count)
        for mechanism, count in _gaussians(event.terms[:MOST_MERGED])
        if mechanism.noise_multiplier <= LARGEST_NOISE_MULTIPLIER
        and mechanism.sampling_rate >= SMALLEST_RATE
    ]
    few = _merged(told, upward=False)
    most = LARGEST_COUNT // max(len(few), 1)
    total = DpEvent()
    for mechanism, count in few:
        noise = max(mechanism.noise_multiplier, SMALLEST_NOISE_MULTIPLIER)
        enough = Mechanism.of(mechanism.sampling_rate, noise)
        total += DpEvent.once(enough, count=min(count, most))
    return total


def merged(event: DpEvent, *, upward: bool) -> DpEvent:
    """An event of few mechanisms that dominates (or is dominated by) `event`.

    A Poisson-subsampled Gaussian dominates another of a lower rate, of which it is the mixture
    with one that ignores the data, and of more noise, which is a post-processing: at most
    `MOST_TERMS` are left of them. Integer Laplace noise stays as it is, or is left out.

    Raises:
        CertificationError: more mechanisms than are looked at, or one without a guarantee.
    """
    if len(event.terms) > MOST_MERGED or not event.is_private:
        raise CertificationError(f"more than {MOST_MERGED} different mechanisms are not bounded")
    total = DpEvent(distance=event.distance if upward else Decimal(0))
    for mechanism, count in _merged(_gaussians(event.terms), upward=upward):
        total += DpEvent.once(mechanism, count=count)
    others = [term for term in event.terms if isinstance(term.mechanism, LaplaceMechanism)]
    if upward and len(others) > MOST_TERMS:
        raise CertificationError(
            f"more than {MOST_TERMS} different mechanisms of integer Laplace noise are not bounded"
        )
    for term in others if upward else ():
        total += DpEvent.once(term.mechanism, count=term.count)
    return total


def _gaussians(terms: Iterable[Term]) -> list[tuple[Mechanism, int]]:
    return [(each.mechanism, each.count) for each in terms if isinstance(each.mechanism, Mechanism)]


def _merged(counted: list[tuple[Mechanism, int]], *, upward: bool) -> list[tuple[Mechanism, int]]:
    """At most `MOST_TERMS` mechanisms that together dominate these, or are dominated by them."""
    ordered = sorted(counted, key=lambda pair: (pair[0].sampling_rate, pair[0].noise_multiplier))
    size = max(-(-len(ordered) // MOST_TERMS), 1)
    worst, least = (max, min) if upward else (min, max)
    found = []
    for start in range(0, len(ordered), size):
        some = ordered[start : start + size]
        mechanism = Mechanism.of(
            worst(each.sampling_rate for each, _ in some),
            least(each.noise_multiplier for each, _ in some),
        )
        found.append((mechanism, sum(count for _, count in some)))
    return found


@dataclass
class Remembering:
    """An accountant that is asked the same question once, and never one out of range.

    Attributes:
        accountant: answers.
        price: of a question before it is asked, in milliseconds, beside the work that it counts.
        work: what all questions of a verification together may cost.
        known: answers and refusals so far.
        name: the accountant's.
    """

    accountant: Accountant
    price: Callable[[DpEvent, Decimal], int]
    work: Work
    known: dict[tuple[DpEvent, Decimal], EpsilonBound | CertificationError] = field(
        default_factory=dict
    )
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.accountant.name

    def epsilon(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """As the accountant's.

        Raises:
            CertificationError: also where the event is out of range, the work limit is reached or
                the accountant stumbles.
        """
        place = (event, delta)
        if place not in self.known:
            check_range(event, delta)
            price = self.price(event, delta)
            self.work.require(price)
            # A proof's work is bounded by its accountant; it shows only afterwards what was needed.
            with limited(math.inf) as meter:
                self.known[place] = self._ask(event, delta)
            self.work.take(price + int(meter.spent) // 1000)
        answer = self.known[place]
        if isinstance(answer, CertificationError):
            raise answer
        return answer

    def _ask(self, event: DpEvent, delta: Decimal) -> EpsilonBound | CertificationError:
        try:
            return self.accountant.epsilon(event, delta)
        except CertificationError as error:
            return error
        except (ArithmeticError, ValueError, MemoryError) as error:
            return CertificationError(f"no bound could be computed: {error}")


@dataclass
class Methods:
    """Every accountant that a verification uses; share one among verifications to save time.

    Attributes:
        work: what all of them together may compute.
        certified: proves.
        rdp, pld: peers, recomputed where a report records their figures.
        quick: the second method, a coarser distribution.
    """

    work: Work = field(default_factory=Work)
    certified: Remembering = field(init=False)
    rdp: Remembering = field(init=False)
    pld: Remembering = field(init=False)
    quick: Remembering = field(init=False)
    _optimistic: dict[tuple[DpEvent, Decimal], Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.certified = Remembering(
            CertifiedAccountant(), lambda event, _: least_price(event), self.work
        )
        self.rdp = Remembering(RdpAccountant(), lambda event, _: renyi_price(event), self.work)
        self.pld = Remembering(PldAccountant(PEER_INTERVAL), self._fine_price, self.work)
        self.quick = Remembering(PldAccountant(PLD_INTERVAL), self._coarse_price, self.work)

    def _fine_price(self, event: DpEvent, delta: Decimal) -> int:
        return self._distribution_price(event, delta, PEER_INTERVAL)

    def _coarse_price(self, event: DpEvent, delta: Decimal) -> int:
        return self._distribution_price(event, delta, PLD_INTERVAL)

    def _distribution_price(self, event: DpEvent, delta: Decimal, interval: float) -> int:
        proven = self.certified.epsilon(event, delta)
        reached = proven.upper if proven.upper.is_finite() else proven.lower
        if reached is None:
            raise WorkLimitError("nothing is proven that a distribution could be held against")
        return distribution_price(event, reached, Decimal(str(interval)))

    def named(self, name: str) -> Remembering | None:
        """The accountant of this name, if this version recomputes it."""
        known = {each.name: each for each in (self.certified, self.rdp, self.pld)}
        return known.get(name)

    def bracket(self, event: DpEvent, delta: Decimal) -> EpsilonBound:
        """A proven interval, in bounded time however many mechanisms the event composes.

        Up to `MOST_TERMS` of them it is the certified accountant's own. Of more, mechanisms that
        lie near each other are taken for one: with the highest rate and the least noise among them
        for the upper end, which dominates each; with the lowest and the most for the lower.
        Out of range the upper end is infinite, and the lower one that of an event in range.

        Raises:
            CertificationError: no bound could be computed.
        """
        if not is_enclosed(event, delta):
            return self.certified.epsilon(event, delta)
        # Epsilon never falls where delta does, so that of a larger delta is a lower end.
        lower = self.certified.epsilon(dominated(event), max(delta, SMALLEST_DELTA)).lower
        upper = Decimal("Infinity")
        if _in_range(event, delta) and len(event.terms) <= MOST_MERGED:
            upper = self.certified.epsilon(merged(event, upward=True), delta).upper
        return EpsilonBound(upper, lower, "enclosed by other mechanisms", certified=True)

    def pld_upper(self, event: DpEvent, delta: Decimal) -> Decimal | None:
        """Pessimistic privacy-loss distribution; None where it would take too long."""
        return self._if_feasible(event, delta, lambda: self.quick.epsilon(event, delta).upper)

    def pld_lower(self, event: DpEvent, delta: Decimal) -> Decimal | None:
        """Optimistic privacy-loss distribution of the ideal mechanisms; None where infeasible."""
        place = (event, delta)

        def compute() -> Decimal:
            if place not in self._optimistic:
                price = self._coarse_price(event, delta)
                self.work.require(price)
                self._optimistic[place] = _optimistic(event, delta)
                self.work.take(price)
            return self._optimistic[place]

        return self._if_feasible(event, delta, compute)

    def _if_feasible(
        self, event: DpEvent, delta: Decimal, compute: Callable[[], Decimal]
    ) -> Decimal | None:
        try:
            check_range(event, delta)
            if self.certified.epsilon(event, delta).upper > LARGEST_PLD_EPSILON:
                return None
            return compute()
        except CertificationError:
            return None


def _optimistic(event: DpEvent, delta: Decimal) -> Decimal:
    """Epsilon below which no accountant of the ideal mechanisms may go (privacy buckets)."""
    from dp_accounting.pld import privacy_loss_distribution as distributions

    total = None
    for term in event.terms:
        mechanism = term.mechanism
        if isinstance(mechanism, LaplaceMechanism):
            one = laplace_distribution(mechanism, PLD_INTERVAL, pessimistic=False)
        else:
            one = distributions.from_gaussian_mechanism(
                float_up(mechanism.noise_multiplier),
                value_discretization_interval=PLD_INTERVAL,
                sampling_prob=float_down(mechanism.sampling_rate),
                pessimistic_estimate=False,
                use_connect_dots=False,
            )
        composed = one.self_compose(term.count)
        total = composed if total is None else total.compose(composed)
    if total is None:
        return Decimal(0)
    epsilon = float(total.get_epsilon_for_delta(float_up(delta)))
    return Decimal(epsilon) if math.isfinite(epsilon) else Decimal(0)
