"""Writes each writer's own images from scikit-learn's handwritten digits: a device is a person.

    python examples/devices/prepare.py

The data set names no writers, but it keeps their forms one after the other, and every form begins
with the ten digits thrice. Two writers are declared public: what is measured is how well a stranger
is read.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
STARTS = (0, 130, 256, 386, 516, 646, 776, 905, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
"""Where each form begins; two have a digit of the first thirty missing."""

PUBLIC = (6, 13)
"""Forms that nobody's device holds."""


def prepare(output: Path) -> None:
    """Writes <device>-images.npy, <device>-labels.npy and the same of `public`."""
    output.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    forms = [np.arange(a, b) for a, b in pairwise(STARTS)]
    public = np.concatenate([forms[number] for number in PUBLIC])
    devices = [form for number, form in enumerate(forms) if number not in PUBLIC]
    named = {f"device-{number:02d}": form for number, form in enumerate(devices, start=1)}
    for name, rows in {**named, "public": public}.items():
        np.save(output / f"{name}-images.npy", data.images[rows].astype(np.uint8))
        np.save(output / f"{name}-labels.npy", data.target[rows].astype(np.int64))


if __name__ == "__main__":
    prepare(HERE / "out" / "data")
