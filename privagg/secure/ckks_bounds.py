"""How large the error of a CKKS slot can be: the proof that rounding returns the exact sum.

Let n contributions be added, N the ring degree, s the ternary secret, e the key's error, and per
contribution u the ternary and e0, e1 the error polynomials (SEAL: centred binomial of 42 coins,
so sub-Gaussian with variance proxy 10.5, at most 21). The real or imaginary part of a slot is a
sum of coefficients times cosines or sines; squared, these sum to N/2. In units of 1 (unscaled):

1. Encoding rounds N coefficients, each off by at most 1/2: at most n N/2 in a slot.
2. Fresh noise is e0 + e1 s - e u. Given s and e, it is sub-Gaussian. |s(z)| <= sqrt(2) x sqrt(N/3)
   and |e(z)| <= sqrt(2) x sqrt(10.5 N/2) at all roots z but with the key-failure probability, as
   a uniform ternary coefficient has variance proxy 2/3.
3. With a special prime P, fresh noise is divided by P, and the division rounds: r0 + r1 s with
   |r0|, |r1| <= 1/2. r0 adds at most n N/2. Under the decision-RLWE assumption with secret u that
   encryption rests on anyway, a u + e1 cannot be told from uniform even by who knows s, and then
   r1 is uniform: variance proxy 1/12 a coefficient, times |s(z)|^2.
4. Floating point, relative to the words: a radix-2 transform of size N in double precision has
   relative 2-norm error at most (log2 N + 2) * 12 * 2^-53 (Higham, Accuracy and Stability, 2nd
   ed., 2002, theorem 24.2, twiddles accurate to 4 ulps, plus scaling and conversion). In a slot
   that is sqrt(2 N) times the largest word: once for every contribution encoded, once for the
   decoding.

Failure: sub-Gaussian tails, union over all slots, 2^-64 a job together with the key events, for up
to 2^20 openings of up to 2^40 slots. Everything else is worst case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privagg.encoding.packing import Packing
from privagg.secure.rns import (
    FAILURE_BITS_PER_JOB,
    MIN_PRIME_BITS,
    OPENINGS_PER_JOB_BITS,
    tail_factor,
)

_ERROR_PROXY = 10.5  # 42 fair coins of +-1/2
_TERNARY_PROXY = 2 / 3
_ROUNDING_PROXY = 1 / 12
_MAX_SCALE_BITS = 60
_MAX_RELATIVE_ERROR = 0.25


@dataclass(frozen=True)
class ErrorBound:
    """A slot's greatest error, in the two units it comes in.

    Args:
        absolute: part that a larger scale makes smaller, in units before division by the scale.
        floating: part that it does not, in grid steps.
    """

    absolute: float
    floating: float

    def relative(self, scale_bits: int) -> float:
        """The error in grid steps at a scale of 2^scale_bits."""
        return math.ldexp(self.absolute, -scale_bits) + self.floating


def error_bound(
    ring_degree: int, rule: Packing, *, has_special: bool, smudging_bits: int = 0
) -> ErrorBound:
    """The error bound of the module's text.

    Args:
        ring_degree: N.
        rule: how values become words; gives n and the largest words.
        has_special: whether fresh ciphertexts are divided by a special prime.
        smudging_bits: multiplies the absolute part by 1 + 2^smudging_bits.
    """
    degree, addends = float(ring_degree), float(rule.addends)
    slots = math.ceil(rule.words / ring_degree) * degree
    tail = tail_factor(4 * slots, FAILURE_BITS_PER_JOB + OPENINGS_PER_JOB_BITS + 1)
    key_tail = tail_factor(4 * degree, FAILURE_BITS_PER_JOB + 1)
    secret = math.sqrt(2) * key_tail * math.sqrt(_TERNARY_PROXY * degree / 2)
    key_error = math.sqrt(2) * key_tail * math.sqrt(_ERROR_PROXY * degree / 2)
    deviation = math.sqrt(addends * degree / 2)
    fresh = tail * deviation * math.sqrt(_ERROR_PROXY) * (1 + secret)
    fresh += tail * deviation * math.sqrt(_TERNARY_PROXY) * key_error
    absolute = addends * degree / 2
    if has_special:
        absolute += math.ldexp(fresh, 1 - MIN_PRIME_BITS)  # whatever the special prime is
        absolute += addends * degree / 2
        absolute += tail * deviation * math.sqrt(_ROUNDING_PROXY) * secret
    else:
        absolute += fresh
    if smudging_bits:
        absolute *= 1 + 2.0**smudging_bits
    transform = (math.log2(degree) + 2) * 12 * 2.0**-53 * math.sqrt(2 * degree)
    floating = transform * (addends * rule.word_bound + rule.word_sum_bound)
    return ErrorBound(absolute=absolute, floating=floating)


def scale_bits_for(bound: ErrorBound) -> int | None:
    """Least scale_bits whose relative error is at most 1/4, or None where none is."""
    if bound.floating > _MAX_RELATIVE_ERROR / 2:
        return None
    room = _MAX_RELATIVE_ERROR - bound.floating
    bits = math.ceil(math.log2(bound.absolute / room))
    return max(1, bits) if bits <= _MAX_SCALE_BITS else None


def modulus_bits(rule: Packing, scale_bits: int) -> float:
    """log2 of the least modulus that holds the summed words at a scale, error included.

    A coefficient is at most the largest slot in magnitude, sqrt(2) times the largest word plus
    the error of less than one grid step; it has to stay within half the modulus either way. SEAL's
    encoder refuses a single contribution beyond a quarter of the modulus, which matters where the
    sum may hardly be larger; refusing would depend on private values, so room for it is kept.
    """
    largest = max(2 * (rule.word_sum_bound + 1), 4 * (rule.word_bound + 1))
    return math.log2(math.sqrt(2) * largest) + scale_bits + 2.0**-20
