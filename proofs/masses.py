"""The masses in a convolution certificate, held against mpmath's normal distribution, one by one.

That they lie above those of the round named beside them is what the checker's theorem assumes. Here
a grid point's mass is taken from a closed form of delta at three neighbouring points (Doroshenko et
al. 2022, "Connect the Dots", in terms of the hockey-stick curve), in sixty digits: another formula
and another library than the ones that made it. Numerical evidence, not a proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import mpmath
from mpmath import mpf

from privagg.privacy.certified.convolution_certificate import HEADER

_DIGITS = 60
_SLACK = 2  # a mass may be so many units above the true one


class UnreadableError(ValueError):
    """What is no certificate."""


@dataclass
class Given:
    """What a certificate gives of one kind of round.

    Args:
        rate, noise: of the mechanism.
        sides: "remove" or "add" -> first point, infinite mass, masses.
    """

    rate: mpf
    noise: mpf
    sides: dict[str, tuple[int, int, list[int]]] = field(default_factory=dict)


class _Words:
    def __init__(self, text: str) -> None:
        self._left = (
            word for line in text.splitlines() if not line.startswith("#") for word in line.split()
        )

    def word(self) -> str:
        return next(self._left, "")

    def number(self) -> int:
        word = self.word()
        try:
            return int(word)
        except ValueError as error:
            raise UnreadableError(f"{word!r} is no whole number") from error

    def named(self, name: str) -> int:
        if (word := self.word()) != name:
            raise UnreadableError(f"{word!r} where {name!r} should stand")
        return self.number()


def faults(text: str) -> list[str]:
    """Every mass that is not its round's, in words.

    Args:
        text: of a certificate.

    Raises:
        UnreadableError: it is none.
    """
    words = _Words(text)
    if words.word() != HEADER:
        raise UnreadableError(f"it does not begin with {HEADER}")
    bits, _, steps, _ = (words.named(name) for name in ("bits", "limit", "steps", "epsilon"))
    for name in ("delta", "distance"):
        words.named(name), words.number()
    with mpmath.workdps(_DIGITS):
        return [
            f"{side} of rate {mpmath.nstr(kind.rate)}, noise {mpmath.nstr(kind.noise)}: {fault}"
            for kind in _kinds(words)
            for side in kind.sides
            for fault in _compared(kind, side, bits, steps)
        ]


def _kinds(words: _Words) -> Iterator[Given]:
    while (word := words.word()) == "rounds":
        words.number()
        rate = mpf(words.named("rate")) / words.number()
        kind = Given(rate, mpf(words.named("noise")) / words.number())
        for side in ("remove", "add"):
            start, infinite = words.named(side), words.number()
            kind.sides[side] = start, infinite, [words.number() for _ in range(words.number())]
        yield kind
    if word:
        raise UnreadableError(f"{word!r} where another kind of rounds should begin")


def _compared(kind: Given, side: str, bits: int, steps: int) -> Iterator[str]:
    start, infinite, given = kind.sides[side]
    unit, losses = mpf(2) ** bits, [mpf(start + k) / steps for k in range(len(given))]
    true = [*_masses([_beyond(kind, side, loss) for loss in losses], losses)]
    for k, (mass, own) in enumerate(zip([*given, infinite], true, strict=True)):
        if not -(mpf(2) ** -20) <= mass - own * unit <= _SLACK:
            where = f"grid point {start + k}" if k < len(given) else "an infinite loss"
            yield f"{where} has {mass} units of mass, not {mpmath.nstr(own * unit, 20)}"


def _beyond(kind: Given, side: str, loss: mpf) -> tuple[mpf, mpf]:
    """Mass beyond a loss under the law that it is taken under, and under the other one."""
    ratio = (mpmath.exp(loss if side == "remove" else -loss) - 1 + kind.rate) / kind.rate
    if ratio <= 0:
        return (mpf(1), mpf(1)) if side == "remove" else (mpf(0), mpf(0))
    edge = kind.noise * mpmath.log(ratio) + 1 / (2 * kind.noise)
    if side == "remove":
        base, shifted = mpmath.ncdf(-edge), mpmath.ncdf(1 / kind.noise - edge)
    else:
        base, shifted = mpmath.ncdf(edge), mpmath.ncdf(edge - 1 / kind.noise)
    mixed = (1 - kind.rate) * base + kind.rate * shifted
    return (mixed, base) if side == "remove" else (base, mixed)


def _masses(beyond: list[tuple[mpf, mpf]], losses: list[mpf]) -> Iterator[mpf]:
    """Of every grid point and of the infinite loss, from the slopes of delta in exp(epsilon).

    Beyond the last point everything is infinite; below the first, everything moves up to it.
    """
    grown = [mpmath.exp(loss) for loss in losses]
    infinite, unseen = beyond[-1]
    delta = [own - e * (other - unseen) for (own, other), e in zip(beyond, grown, strict=True)]
    slopes = [(delta[k] - delta[k + 1]) / (grown[k + 1] - grown[k]) for k in range(len(losses) - 1)]
    points = [
        e * (before - after)
        for e, before, after in zip(grown[1:], slopes, [*slopes[1:], mpf(0)], strict=True)
    ]
    yield 1 - sum(points) - infinite
    yield from points
    yield infinite
