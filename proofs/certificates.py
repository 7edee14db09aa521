"""A second opinion on epsilon, by Rocq: `python -m proofs.certificates [FILE ...]`.

For reference events privagg writes the two certificates that `privagg verify --certificate` writes.
The Renyi order's is proven by coq-interval; unlike the theorems of `proofs/rocq` that computes with
Rocq's primitive integers, and so rests on the axioms that describe them. The convolution's is
checked by a program extracted from the theorems, and its masses by mpmath. Neither epsilon may lie
below the contour's upper end by more than the contour's width: where it does, one of the two is
wrong.

With files, those convolution certificates are checked, and nothing else.

Where `coqc` or Zarith is missing it says how to install it and goes on; with `--required` that is a
failure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from privagg.privacy.certified import Mechanism, epsilon_interval
from privagg.privacy.certified.certificate import RenyiCertificate, renyi_certificate
from privagg.privacy.certified.convolution_certificate import (
    ConvolutionCertificate,
    convolution_certificate,
)
from proofs import checker
from proofs.check import INSTALL, RefusedError, compile_all
from proofs.masses import UnreadableError, faults
from proofs.theorems import Theory

EVENTS: dict[str, tuple[dict[Mechanism, int], Fraction, Fraction]] = {
    "demo": ({Mechanism("0.2", "4.97"): 40}, Fraction(1, 10**5), Fraction(0)),
    "sampled": ({Mechanism("0.01", "1.1"): 1000}, Fraction(1, 10**5), Fraction(0)),
    "two_kinds_at_a_distance": (
        {Mechanism("0.01", "2"): 1000, Mechanism("1", "30"): 5},
        Fraction(1, 10**5),
        Fraction(1, 10**20),
    ),
    "unsampled": ({Mechanism("1", "5"): 10}, Fraction(1, 10**6), Fraction(1, 10**15)),
}
"""Name -> rounds, delta, distance."""


@dataclass(frozen=True)
class Reference:
    """What is known of one event's epsilon.

    Args:
        renyi, convolution: certificates.
        upper: the contour's upper end.
    """

    renyi: RenyiCertificate
    convolution: ConvolutionCertificate
    upper: Fraction


def references() -> dict[str, Reference]:
    """Name -> both certificates, and the proven upper end of epsilon."""
    found = {}
    for name, (rounds, delta, distance) in EVENTS.items():
        renyi = renyi_certificate(rounds, delta, extra_distance=distance)
        convolution = convolution_certificate(
            rounds, delta, guess=float(renyi.epsilon), extra_distance=distance
        )
        upper = epsilon_interval(rounds, delta, extra_distance=distance).upper
        found[name] = Reference(renyi, convolution, upper)
    return found


def refusals(files: Sequence[Path], program: Path) -> list[str]:
    """What speaks against convolution certificates, in words.

    Args:
        files: the certificates.
        program: the checker.
    """
    right, told = checker.said(program, files)
    found = [] if right else [line for line in told.splitlines() if "REFUSED" in line]
    for path in files:
        try:
            wrong = faults(path.read_text(encoding="utf-8"))
        except (UnreadableError, OSError) as error:
            wrong = [str(error)]
        found += [f"{path.name}: {fault}" for fault in wrong[:3]]
    return found


def _of_files(files: Sequence[Path]) -> int:
    with tempfile.TemporaryDirectory() as place:
        program = checker.build(Path(place))
        found = refusals(files, program)
        print(checker.said(program, files)[1], end="")
    for problem in found:
        print(f"proofs: {problem}", file=sys.stderr)
    return int(bool(found))


def _of_references() -> int:
    found = references()
    with tempfile.TemporaryDirectory() as place:
        folder, files = Path(place), []
        program = checker.build(folder)
        for name, each in found.items():
            compile_all([Theory(f"Epsilon_{name}", each.renyi.to_rocq())], folder)
            files.append(folder / f"{name}.txt")
            files[-1].write_text(each.convolution.to_text(), encoding="utf-8")
        problems = refusals(files, program)
    for name, each in found.items():
        if min(each.renyi.epsilon, each.convolution.epsilon) < each.upper:
            problems.append(f"a certificate of {name} lies below the contour's end")
    for problem in problems:
        print(f"proofs: {problem}", file=sys.stderr)
    told = ", ".join(
        f"{name} {float(each.renyi.epsilon):.4f}, {float(each.convolution.epsilon):.4f} "
        f"({float(each.upper):.4f})"
        for name, each in found.items()
    )
    print(
        "proofs: epsilon by Renyi, proven by coq-interval, by convolution, accepted by the "
        f"extracted checker, (and by the contour): {told}"
    )
    return int(bool(problems))


def main(arguments: list[str] | None = None) -> int:
    """Check files, or write and check the references. Exit status."""
    parser = argparse.ArgumentParser(prog="python -m proofs.certificates", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where Rocq is missing")
    parser.add_argument("files", nargs="*", type=Path, help="convolution certificates to check")
    options = parser.parse_args(arguments)
    if checker.missing():
        print(f"proofs: Rocq or Zarith is missing, no certificate was checked; install: {INSTALL}")
        return int(options.required or bool(options.files))
    try:
        return _of_files(options.files) if options.files else _of_references()
    except RefusedError as error:
        print(f"proofs: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
