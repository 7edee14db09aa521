"""A certificate's epsilon: never below the contour's, never below any other Renyi order's."""

from __future__ import annotations

import math
import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from privagg.errors import CertificationError, PrivacyError
from privagg.privacy.certified import Mechanism, epsilon_interval
from privagg.privacy.certified.certificate import RenyiCertificate, renyi_certificate
from proofs.certificates import EVENTS
from proofs.check import RefusedError, compile_all
from proofs.theorems import Theory

needs_rocq = pytest.mark.skipif(shutil.which("coqc") is None, reason="coqc is not installed")


def holds_in_floats(made: RenyiCertificate, slack: float = 0.0) -> bool:
    """Section 9's inequality by Python's floats, term by term."""
    alpha, epsilon = made.order, float(made.epsilon) - slack
    total = 0.0
    for mechanism, times in made.rounds:
        rate, noise = float(mechanism.sampling_rate), float(mechanism.noise_multiplier)
        terms = [
            math.comb(alpha, j)
            * (1 - rate) ** (alpha - j)
            * rate**j
            * math.exp(j * (j - 1) / (2 * noise**2))
            for j in range(alpha + 1)
        ]
        total += times * math.log(sum(terms))
    room = float(made.delta) - (1 + math.exp(epsilon)) * float(made.distance)
    total += (alpha - 1) * math.log(alpha - 1) - alpha * math.log(alpha) - math.log(room)
    return total <= (alpha - 1) * epsilon


def test_reference_certificates_lie_above_the_contour_and_hold() -> None:
    for rounds, delta, distance in EVENTS.values():
        made = renyi_certificate(rounds, delta, extra_distance=distance)
        upper = epsilon_interval(rounds, delta, extra_distance=distance).upper
        assert upper <= made.epsilon < 2 * upper
        assert holds_in_floats(made)
        assert not holds_in_floats(made, slack=3e-6)


def test_a_distance_costs_epsilon_and_too_much_of_it_is_refused() -> None:
    rounds, delta = {Mechanism("1", "5"): 10}, Fraction(1, 10**6)
    free = renyi_certificate(rounds, delta)
    dear = renyi_certificate(rounds, delta, extra_distance=Fraction(1, 10**8))
    assert dear.epsilon > free.epsilon + Fraction(1, 100)
    assert holds_in_floats(dear)
    with pytest.raises(CertificationError, match="leaves nothing of delta"):
        renyi_certificate(rounds, delta, extra_distance=Fraction(1, 10**7))


def test_what_has_no_certificate_is_refused() -> None:
    with pytest.raises(CertificationError, match="not 0"):
        renyi_certificate({}, "1e-6")
    with pytest.raises(PrivacyError, match="strictly between"):
        renyi_certificate({Mechanism("1", "5"): 1}, 0)


@needs_rocq
def test_rocq_proves_a_certificate_and_no_smaller_epsilon(tmp_path: Path) -> None:
    made = renyi_certificate({Mechanism("1", "5"): 10}, "1e-6", extra_distance="1e-20")
    compile_all([Theory("Right", made.to_rocq())], tmp_path)
    less = RenyiCertificate(
        made.rounds, made.delta, made.distance, made.order, made.epsilon - Fraction(1, 10**5)
    )
    with pytest.raises(RefusedError):
        compile_all([Theory("Wrong", less.to_rocq())], tmp_path)
