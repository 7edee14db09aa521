"""Encrypting and opening model updates: seconds and bytes, against a straight TenSEAL loop.

`python -m tests.benchmarks.encryption [--full] [--json FILE]`. One core unless a row says more;
medians over rounds in which all jobs take turns. --full runs a ResNet-50-sized update of 25.6
million parameters; without it a million, and the figure for 25.6 million is scaled from it.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement
from privagg.secure.wire import EncryptedTensor
from privagg.secure.workers import ENVIRONMENT as PROCESSES
from privagg.secure.workers import close_helpers
from privagg.threads import available_cpus
from tests.benchmarks.tables import show, write_json
from tests.benchmarks.timing import medians, metered

RESNET_50 = 25_600_000
STRAIGHT = 16 * 4096  # parameters of the straight loop, which is linear in them
SITES = 64
UPLOAD_BOUND = 32_767  # 16-bit values
SUM_BOUND = (1 << 21) - 1  # 22-bit sums


def straight_tenseal() -> tuple[Callable[[], object], Callable[[], object], int]:
    """TenSEAL's usual CKKS: encrypt and serialise; read and decrypt; bytes of the upload."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, -1, [60, 40, 60])
    context.global_scale = 2.0**40
    values = np.random.default_rng(1).normal(size=STRAIGHT)

    def encrypt() -> list[bytes]:
        return [
            tenseal.ckks_vector(context, values[at : at + 4096]).serialize()
            for at in range(0, STRAIGHT, 4096)
        ]

    made = encrypt()

    def opened() -> None:
        for data in made:
            tenseal.ckks_vector_from(context, data).decrypt()

    return encrypt, opened, sum(map(len, made))


def privagg_jobs(
    name: str, length: int
) -> tuple[Callable[[], object], Callable[[], object], int, str]:
    """One scheme's upload, made and serialised; its opening; its bytes; its parameters."""
    found = scheme(name)
    parameters = found.choose_parameters(Requirement(length, UPLOAD_BOUND, SUM_BOUND, SITES))
    key = key_generator(found.name).generate_key(parameters)
    values = np.random.default_rng(2).integers(
        -UPLOAD_BOUND, UPLOAD_BOUND, length, dtype=np.int64, endpoint=True
    )

    def encrypt() -> bytes:
        return EncryptedTensor(
            name, parameters.fingerprint, length, parameters.packing,
            b"\x01", 1, memoryview(key.encryption_key.encrypt(values)),
        ).to_bytes()  # fmt: skip

    data = encrypt()
    payload = EncryptedTensor.from_bytes(data, max_bytes=len(data)).payload

    def opened() -> None:
        if found.combine(parameters, [key.open_share(payload, 1)], 1).tobytes() != values.tobytes():
            raise SystemExit("the opened sum is wrong")

    opened()
    return encrypt, opened, len(data), parameters.packing


def measure(length: int, rounds: int) -> list[dict[str, Any]]:
    """Rows for TenSEAL, CKKS and BFV on one core, then BFV on all."""
    os.environ[PROCESSES] = os.environ["PRIVAGG_THREADS"] = "1"
    encrypt, opened, size = straight_tenseal()
    jobs = {"tenseal": encrypt, "tenseal open": opened}
    facts: dict[str, tuple[str, int, int]] = {
        "tenseal": ("TenSEAL CKKS [60,40,60]", STRAIGHT, size)
    }
    for name in ("ckks", "bfv"):
        encrypt, opened, size, packing = privagg_jobs(name, length)
        jobs |= {name: encrypt, f"{name} open": opened}
        facts[name] = (packing, length, size)
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    seconds = medians({name: metered(job, spent[name]) for name, job in jobs.items()}, rounds)
    processor = {name: statistics.median(values[1:]) for name, values in spent.items()}
    del os.environ["PRIVAGG_THREADS"]
    os.environ[PROCESSES] = str(available_cpus())
    seconds["bfv on all cores"] = medians({"bfv": jobs["bfv"]}, rounds)["bfv"]
    seconds["bfv on all cores open"] = seconds["bfv open"]
    facts["bfv on all cores"] = (
        f"{facts['bfv'][0]}, {available_cpus()} processes",
        *facts["bfv"][1:],
    )
    close_helpers()
    base = seconds["tenseal"] / STRAIGHT
    return [
        {
            "what": what,
            "scheme": name,
            "parameters": count,
            "bytes_per_parameter": size / count,
            "times_float32": size / count / 4,
            "encrypt_nanoseconds_per_parameter": seconds[name] / count * 1e9,
            "encrypt_seconds_resnet_50": seconds[name] / count * RESNET_50,
            "measured_at_full_size": count == RESNET_50,
            "open_nanoseconds_per_parameter": seconds[f"{name} open"] / count * 1e9,
            "times_tenseal": base / (seconds[name] / count),
            "encrypt_processor_seconds_resnet_50": (
                processor[name] / count * RESNET_50 if name in processor else None
            ),
        }
        for name, (what, count, size) in facts.items()
    ]


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="25.6 million parameters")
    parser.add_argument("--quick", action="store_true", help="100,000 parameters, few rounds")
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    length = RESNET_50 if arguments.full else 100_000 if arguments.quick else 1_000_000
    rows = measure(length, 3 if arguments.full or arguments.quick else 7)
    show(
        f"Encrypted uploads: 16-bit values, {SITES} sites, 22-bit sums, public key",
        {
            "what": "what",
            "parameters": lambda row: f"{row['parameters']:,}",
            "bytes each": "bytes_per_parameter",
            "x float32": "times_float32",
            "encrypt ns each": "encrypt_nanoseconds_per_parameter",
            "s for 25.6 M": "encrypt_seconds_resnet_50",
            "CPU s for 25.6 M": "encrypt_processor_seconds_resnet_50",
            "open ns each": "open_nanoseconds_per_parameter",
            "x TenSEAL": "times_tenseal",
        },
        rows,
        "Medians of jobs that take turns; encrypting includes serialising.",
    )
    write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
