"""A second opinion on epsilon, by Rocq: `python -m proofs.certificates`.

For four reference events privagg writes a certificate, as `privagg verify --certificate` does, and
coq-interval proves it. Its epsilon must not lie below the contour's upper end, which no Renyi order
can undercut by more than the contour's width: where it does, one of the two is wrong. Unlike the
theorems of `proofs/rocq` these proofs compute with Rocq's primitive integers, and so rest on the
axioms that describe them.

Where `coqc` is missing it says how to install it and goes on; with `--required` that is a failure.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

from privagg.privacy.certified import Mechanism, epsilon_interval
from privagg.privacy.certified.certificate import RenyiCertificate, renyi_certificate
from proofs.check import INSTALL, RefusedError, compile_all
from proofs.theorems import Theory

EVENTS: dict[str, tuple[dict[Mechanism, int], Fraction, Fraction]] = {
    "sampled": ({Mechanism("0.01", "1.1"): 1000}, Fraction(1, 10**5), Fraction(0)),
    "sampled_with_a_distance": (
        {Mechanism("0.01", "2"): 1000},
        Fraction(1, 10**5),
        Fraction(1, 10**20),
    ),
    "two_kinds": (
        {Mechanism("0.001", "1"): 10000, Mechanism("1", "30"): 5},
        Fraction(1, 10**6),
        Fraction(0),
    ),
    "unsampled": ({Mechanism("1", "5"): 10}, Fraction(1, 10**6), Fraction(1, 10**15)),
}
"""Name -> rounds, delta, distance."""


def references() -> dict[str, tuple[RenyiCertificate, Fraction]]:
    """Name -> the certificate, and the proven upper end of epsilon."""
    return {
        name: (
            renyi_certificate(rounds, delta, extra_distance=distance),
            epsilon_interval(rounds, delta, extra_distance=distance).upper,
        )
        for name, (rounds, delta, distance) in EVENTS.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Write and prove all four. Exit status."""
    parser = argparse.ArgumentParser(prog="python -m proofs.certificates", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where coqc is missing")
    options = parser.parse_args(arguments)
    if shutil.which("coqc") is None:
        print(f"proofs: coqc is missing, no certificate was checked; install it: {INSTALL}")
        return int(options.required)
    found = references()
    files = [Theory(f"Epsilon_{name}", made.to_rocq()) for name, (made, _) in found.items()]
    try:
        with tempfile.TemporaryDirectory() as folder:
            compile_all(files, Path(folder))
    except RefusedError as error:
        print(f"proofs: {error}", file=sys.stderr)
        return 1
    low = [name for name, (made, upper) in found.items() if made.epsilon < upper]
    for name in low:
        print(f"proofs: the certificate of {name} lies below the contour's end", file=sys.stderr)
    said = ", ".join(
        f"{name} {float(made.epsilon):.6f} (contour {float(upper):.6f})"
        for name, (made, upper) in found.items()
    )
    print(f"proofs: certificates of epsilon proven by coq-interval: {said}")
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
