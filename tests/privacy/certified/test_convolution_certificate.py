"""A convolution certificate: its program accepts what follows, mpmath what is really a round's."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from privagg.errors import CertificationError
from privagg.privacy.certified import Mechanism, epsilon_interval
from privagg.privacy.certified.convolution_certificate import convolution_certificate
from privagg.privacy.certified.mechanism import Composition
from proofs import certificates, checker
from proofs.masses import UnreadableError, faults

needs_program = pytest.mark.skipif(checker.missing(), reason="Rocq or Zarith is not installed")

EVENTS: dict[str, tuple[Composition, str, str]] = {
    "readme": ({Mechanism("0.2", "4.97"): 40}, "1e-5", "0"),
    "distance": ({Mechanism("0.3", "6"): 7, Mechanism("1", "30"): 3}, "1e-6", "1e-9"),
    "once": ({Mechanism("0.01", "0.8"): 1}, "1e-7", "0"),
    "nothing_but_noise": ({Mechanism("1e-4", "50"): 2}, "1e-3", "0"),
}


def text_of(name: str) -> str:
    rounds, delta, distance = EVENTS[name]
    about = float(epsilon_interval(rounds, delta, extra_distance=distance).upper)
    return convolution_certificate(
        rounds, delta, guess=max(about, 0.01), extra_distance=distance
    ).to_text()


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: text_of(name) for name in EVENTS}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checker.build(tmp_path_factory.mktemp("checker"), unproved=True)


def put(name: str, change: Callable[[int], int], place: int = 1) -> Callable[[str], str]:
    """The whole number at a place of the first line that begins so, changed."""

    def changed(text: str) -> str:
        lines = text.splitlines()
        at = next(k for k, line in enumerate(lines) if line.startswith(name + " "))
        words = lines[at].split()
        words[place] = str(change(int(words[place])))
        return "\n".join([*lines[:at], " ".join(words), *lines[at + 1 :]])

    return changed


def in_masses(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    """The four largest masses of the first direction, changed."""

    def changed(text: str) -> str:
        lines = text.splitlines()
        first = next(k for k, line in enumerate(lines) if line.startswith("remove ")) + 1
        count = int(lines[first - 1].split()[-1])
        top = max(range(first, first + count), key=lambda k: int(lines[k]))
        return "\n".join([*lines[:top], *change(lines[top : top + 4]), *lines[top + 4 :]])

    return changed


PROGRAM, MPMATH = "REFUSED: epsilon", "units of mass"
LIES: dict[str, tuple[Callable[[str], str], set[str]]] = {
    "a mass lowered": (
        in_masses(lambda them: [str(int(them[0]) - 2000), *them[1:]]),
        {PROGRAM, MPMATH},
    ),
    "a mass lowered by three units": (
        in_masses(lambda them: [str(int(them[0]) - 3), *them[1:]]),
        {MPMATH},
    ),
    "two cells exchanged": (in_masses(lambda them: [them[1], them[0], *them[2:]]), {MPMATH}),
    "every cell moved down": (put("remove", lambda start: start - 1), {MPMATH}),
    "every cell of the other direction moved down": (put("add", lambda at: at - 1), {MPMATH}),
    "no infinite loss": (put("remove", lambda _: 0, 2), {PROGRAM, MPMATH}),
    "a round left out": (put("rounds", lambda times: times + 1), {PROGRAM}),
    "a finer grid": (put("steps", lambda steps: steps + 1), {MPMATH}),
    "a coarser grid": (put("steps", lambda steps: steps - 1), {MPMATH}),
    "masses in other units": (put("bits", lambda bits: bits + 1), {PROGRAM, MPMATH}),
    "more noise": (put("noise", lambda noise: noise + 1), {MPMATH}),
    "rarer records": (put("rate", lambda below: below + 1, 2), {MPMATH}),
    "a smaller epsilon": (put("epsilon", lambda epsilon: epsilon - 1), {PROGRAM}),
    "a smaller delta": (put("delta", lambda below: below * 101 // 100, 2), {PROGRAM}),
    "a distance kept back": (put("distance", lambda _: 1), {PROGRAM}),
}


@needs_program
@pytest.mark.parametrize("lie", LIES)
def test_every_lie_of_a_certificate_is_found(
    lie: str, texts: dict[str, str], program: Path, tmp_path: Path
) -> None:
    tell, by = LIES[lie]
    path = tmp_path / "lie.txt"
    path.write_text(tell(texts["readme"]))
    found = certificates.refusals([path], program)
    assert {who for who in (PROGRAM, MPMATH) if any(who in each for each in found)} == by


@needs_program
@pytest.mark.parametrize("name", EVENTS)
def test_the_program_accepts_what_privagg_writes_and_no_less(
    name: str, texts: dict[str, str], program: Path, tmp_path: Path
) -> None:
    path = tmp_path / "right.txt"
    path.write_text(texts[name])
    assert certificates.refusals([path], program) == []
    if "\nepsilon 0\n" not in texts[name]:
        path.write_text(put("epsilon", lambda epsilon: epsilon - 1)(texts[name]))
        assert not checker.said(program, [path])[0]


@needs_program
@pytest.mark.parametrize(
    "text",
    ["", "privagg", "privagg-convolution-certificate-1\nbits 96\n", "{}", "\x00" * 9],
)
def test_what_is_no_certificate_is_refused(text: str, program: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.txt"
    path.write_text(text)
    right, told = checker.said(program, [path])
    assert not right
    assert "no certificate" in told
    with pytest.raises(UnreadableError):
        faults(text)


@pytest.mark.parametrize("name", EVENTS)
def test_it_lies_just_above_the_contour_and_each_mass_above_mpmaths(
    name: str, texts: dict[str, str]
) -> None:
    rounds, delta, distance = EVENTS[name]
    upper = epsilon_interval(rounds, delta, extra_distance=distance).upper
    words = dict(
        line.split(" ", 1) for line in texts[name].splitlines() if line[0].isalpha() and " " in line
    )
    steps = int(words["steps"])
    assert (
        upper
        <= Fraction(int(words["epsilon"]), steps)
        <= upper * Fraction(1003, 1000) + Fraction(2, steps)
    )
    assert faults(texts[name]) == []


def test_what_has_no_certificate_is_refused() -> None:
    with pytest.raises(CertificationError, match="empty composition"):
        convolution_certificate({}, "1e-6", guess=1.0)
    with pytest.raises(CertificationError, match="leave nothing of delta"):
        convolution_certificate({Mechanism("1", "5"): 10}, "1e-6", guess=3.0, extra_distance="1e-6")
