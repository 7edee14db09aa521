"""A proof of epsilon that somebody else's program checks: one Renyi order and a rational bound.

`RenyiCertificate.to_rocq` states the inequality in which section 9 of proofs/certified-epsilon.md
ends, with exact rationals, as a theorem that coq-interval's tactic `interval` proves: interval
arithmetic in Rocq's kernel, which shares nothing with the one used here. That this inequality gives
(epsilon, delta) is the theorem `a_renyi_certificate_certifies_epsilon` in proofs/rocq/Privacy.v.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from privagg.errors import CertificationError
from privagg.privacy.certified.balls import ball, lower_end, working_precision
from privagg.privacy.certified.mechanism import (
    Composition,
    Rational,
    Rounds,
    checked_delta,
    normalised,
    rational,
)
from privagg.privacy.certified.renyi import RenyiBudget

LARGEST_ORDER = 64
"""Of a certificate: each order adds a term a mechanism to what Rocq computes."""

MOST_MECHANISMS = 64

_BITS = 192
_STEP = Fraction(1, 10**6)  # epsilon is a multiple of it
_ROCQ_BITS = 160


@dataclass(frozen=True)
class RenyiCertificate:
    """An order and an epsilon for which section 9's inequality holds.

    Args:
        rounds: the composition.
        delta: of the guarantee.
        distance: total-variation distance of what really runs, folded into delta.
        order: whole Renyi order alpha, at least 2.
        epsilon: a multiple of 10^-6.
    """

    rounds: Rounds
    delta: Fraction
    distance: Fraction
    order: int
    epsilon: Fraction

    def to_rocq(self) -> str:
        """A file that `coqc` accepts where the inequality holds; needs libcoq-interval."""
        a, alpha, eps = self.order - 1, self.order, _number(self.epsilon)
        room = _number(self.delta)
        if self.distance:
            room += f" - (1 + exp {eps}) * {_number(self.distance)}"
        moments = "\n  + ".join(self._moments())
        return (
            f"(* epsilon <= {float(self.epsilon):.6f} at delta = {float(self.delta):.3g}, by the "
            f"moment of order {alpha}:\n   the hypothesis of "
            "a_renyi_certificate_certifies_epsilon in proofs/rocq/Privacy.v, with the\n   moments "
            "of proofs/certified-epsilon.md, section 9. Needs libcoq-interval. *)\n"
            "From Coq Require Import Reals.\nFrom Interval Require Import Tactic.\n"
            "Open Scope R_scope.\n\nTheorem epsilon_is_certified :\n"
            f"  {moments}\n  + {a} * ln {a} - {alpha} * ln {alpha} - ln ({room})\n"
            f"  <= {a} * {eps}.\n"
            f"Proof. interval with (i_prec {_ROCQ_BITS}). Qed.\n"
        )

    def _moments(self) -> Iterator[str]:
        """Each mechanism's log moment, times how often it ran."""
        for mechanism, times in self.rounds:
            noise = Fraction(mechanism.noise_multiplier)
            if mechanism.is_gaussian:
                log_moment = Fraction(self.order * (self.order - 1)) / (2 * noise**2)
                yield f"{times} * {_number(log_moment)}"
                continue
            rate = _number(Fraction(mechanism.sampling_rate))
            terms = (
                f"{math.comb(self.order, j)} * (1 - {rate}) ^ {self.order - j} * {rate} ^ {j}"
                f" * exp {_number(Fraction(j * (j - 1)) / (2 * noise**2))}"
                for j in range(self.order + 1)
            )
            yield f"{times} * ln (" + "\n    + ".join(terms) + ")"


def renyi_certificate(
    composition: Composition, delta: Rational, *, extra_distance: Rational = 0
) -> RenyiCertificate:
    """The order that gives the least epsilon, with that epsilon rounded up to a millionth.

    Args:
        composition: mechanism -> number of rounds; parameters fixed before the first round.
        delta: exact rational in (0, 1).
        extra_distance: total-variation distance of what runs from this, as an exact rational.

    Raises:
        CertificationError: the composition is empty or has more than `MOST_MECHANISMS` kinds, or
            the distance leaves nothing of delta.

    Source: Canonne, Kamath & Steinke 2020, Proposition 12; proofs/certified-epsilon.md, sections 9
        and 10.
    """
    rounds, at, distance = (
        normalised(composition), checked_delta(delta), rational(extra_distance, "extra_distance"),
    )  # fmt: skip
    if not 1 <= len(rounds) <= MOST_MECHANISMS:
        raise CertificationError(
            f"a certificate is of 1 to {MOST_MECHANISMS} different mechanisms, not {len(rounds)}"
        )
    with working_precision(_BITS):
        budget = RenyiBudget.of(rounds, tuple(range(2, LARGEST_ORDER + 1)))
        epsilon = Fraction(0)
        while True:
            # The least epsilon at what is left of delta once the distance is folded in; it rises.
            room = lower_end(ball(at) - (1 + ball(epsilon).exp()) * ball(distance))
            if room <= 0:
                raise CertificationError(
                    "the distance leaves nothing of delta: no Renyi order certifies an epsilon"
                )
            needed, order = min((_least(budget, each, room), each) for each in budget.moments)
            if needed <= epsilon:
                return RenyiCertificate(rounds, at, distance, order, epsilon)
            epsilon = needed


def _least(budget: RenyiBudget, order: int, room: Fraction) -> Fraction:
    """The least multiple of 10^-6 that an order proves, with a thousandth of it to spare."""
    epsilon = RenyiBudget({order: budget.moments[order]}).upper_epsilon(room)
    return math.ceil(epsilon / _STEP + Fraction(1, 1000)) * _STEP


def _number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"({value})"
