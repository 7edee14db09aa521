"""Paillier: values a second encrypted, added and opened, against straight phe.

`python -m tests.benchmarks.paillier [--quick] [--json FILE]`. 22-bit sums in slots of 24 bits (two
guard bits). Straight phe encrypts one value in each ciphertext, adds ciphertext by ciphertext and
decrypts one by one; "phe, packed" gives phe our packed integers, which shows what packing alone
brings. Jobs take turns and medians are reported. On a busy machine compare ratios, or the values
per second of processor time (of all threads together), which do not count what others used.

Adding includes the check of every ciphertext (range, and not a multiple of n) and starts with the
uploads' bytes in memory; encrypting starts with int64 values and ends with the payload's bytes. The
table of powers is made once for a key and is a row of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from phe import paillier as phe

from privagg.encoding.vectors import IntVector
from privagg.secure.paillier import PaillierScheme, to_phe_private
from privagg.secure.paillier_keys import PaillierDecryptionKey, PaillierKeyGenerator
from privagg.secure.paillier_parameters import rated_security
from privagg.secure.scheme import Requirement
from privagg.threads import available_cpus
from tests.benchmarks.tables import show, write_json
from tests.benchmarks.timing import medians, metered

SITES = 64
UPLOAD_BOUND = 32_767  # 16-bit values
SUM_BOUND = (1 << 21) - 1  # 22-bit sums
THREADS = "PRIVAGG_THREADS"
TARGETS = {("encrypt", 2048): 200_000.0, ("add", 2048): 10_000_000.0}

Job = Callable[[], object]


def straight_phe(key: PaillierDecryptionKey, values: IntVector) -> dict[str, tuple[Job, int]]:
    """phe as its documentation shows it, a value a ciphertext, and phe on packed integers."""
    private = to_phe_private(key)
    public = private.public_key
    few = [int(v) for v in values[:8]]
    encrypted = [public.encrypt(v) for v in few]
    packed = [m % public.n for m in key.encryption_key.parameters.slots.pack(values)[:8]]
    slots = key.encryption_key.parameters.slots.slots
    ciphertexts = [phe.EncryptedNumber(public, public.raw_encrypt(m)) for m in packed]
    adds = 50

    def pairs(numbers: list[Any]) -> list[tuple[Any, Any]]:
        return list(zip(numbers, numbers[1:] + numbers[:1], strict=True))

    return {
        "encrypt": (lambda: [public.encrypt(v) for v in few], len(few)),
        "add": (lambda: [a + b for _ in range(adds) for a, b in pairs(encrypted)],
                adds * len(few)),
        "open": (lambda: [private.decrypt(c) for c in encrypted], len(few)),
        "packed encrypt": (lambda: [public.raw_encrypt(m) for m in packed], slots * len(packed)),
        "packed add": (
            lambda: [a + b for _ in range(adds) for a, b in pairs(ciphertexts)],
            adds * slots * len(packed),
        ),
        "packed open": (
            lambda: [private.raw_decrypt(c.ciphertext(be_secure=False)) for c in ciphertexts],
            slots * len(packed),
        ),
    }  # fmt: skip


def with_threads(threads: int, job: Job) -> Job:
    """The job with that many threads."""

    def run() -> object:
        os.environ[THREADS] = str(threads)
        try:
            return job()
        finally:
            del os.environ[THREADS]

    return run


def ours(key: PaillierDecryptionKey, values: IntVector) -> dict[str, tuple[Job, int]]:
    """The scheme's own calls: fresh uploads, a fold of several, an opening of a part."""
    public = key.encryption_key
    parameters = public.parameters
    uploads = [public.encrypt(np.roll(values, shift)) for shift in range(4)]

    def add() -> bytes:
        fold = parameters.fold()
        for _ in range(SITES // len(uploads)):
            if any(fold.add_many(uploads)):
                raise SystemExit("an honest upload was refused")
        return fold.payload()

    small = Requirement(64 * parameters.slots.slots, UPLOAD_BOUND, SUM_BOUND, SITES, 112)
    part = PaillierScheme().choose_parameters(small, modulus_bits=parameters.modulus_bits)
    holder = PaillierKeyGenerator().load_decryption_key(part, key.to_bytes())
    some = values[: small.length]
    upload = holder.encryption_key.encrypt(some)

    def opened() -> None:
        if holder.open_share(upload, 1) != some.astype("<i8").tobytes():
            raise SystemExit("the opened sum is wrong")

    return {
        "encrypt": (lambda: public.encrypt(values), values.size),
        "add": (add, values.size * SITES),
        "open": (opened, small.length),
    }


def table_job(key: PaillierDecryptionKey) -> Job:
    """Makes the table of powers anew, at the size the benchmark's length calls for."""
    public = key.encryption_key

    def make() -> None:
        public._table = None
        public._fixed_base()

    return make


def measure(modulus_bits: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """Rows for one key size."""
    scheme = PaillierScheme()
    level = rated_security(modulus_bits)
    requirement = Requirement(length, UPLOAD_BOUND, SUM_BOUND, SITES, level)
    parameters = scheme.choose_parameters(requirement, modulus_bits=modulus_bits)
    key = PaillierKeyGenerator().generate_key(parameters)
    values = np.random.default_rng(3).integers(
        -UPLOAD_BOUND, UPLOAD_BOUND, length, dtype=np.int64, endpoint=True
    )
    made = {f"phe {name}": job for name, job in straight_phe(key, values).items()}
    for threads in sorted({1, available_cpus()}):
        for name, (job, count) in ours(key, values).items():
            made[f"privagg {threads} {name}"] = (with_threads(threads, job), count)
    spent: dict[str, list[float]] = {name: [] for name in made}
    jobs = {name: metered(job, spent[name]) for name, (job, _) in made.items()}
    seconds = medians({**jobs, "table": table_job(key)}, rounds)
    rate = {name: made[name][1] / seconds[name] for name in jobs}
    cpu_rate = {name: made[name][1] / statistics.median(spent[name][1:]) for name in jobs}
    rows = []
    for name in jobs:
        who, _, what = name.rpartition(" ")
        target = TARGETS.get((what, modulus_bits)) if who.startswith("privagg") else None
        rows.append({
            "modulus_bits": modulus_bits,
            "security_bits": level,
            "who": who.replace("privagg ", "privagg x "),
            "what": what,
            "values_per_second": rate[name],
            "values_per_cpu_second": cpu_rate[name],
            "times_straight_phe": rate[name] / rate[f"phe {what}"],
            "times_phe_packed": rate[name] / rate[f"phe packed {what}"],
            "target_values_per_second": target,
            "bytes_per_value": key.encryption_key.parameters.payload_bytes / length,
            "table_seconds": seconds["table"],
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer values and rounds")
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    length, rounds = (34_000, 3) if arguments.quick else (136_000, 7)
    rows = [row for bits in (2048, 3072) for row in measure(bits, length, rounds)]
    rows.sort(key=lambda row: (row["modulus_bits"], row["what"], row["values_per_second"]))
    show(
        f"Paillier: {length:,} values, {SITES} sites, 22-bit sums in 24-bit slots",
        {
            "bits": lambda row: f"{row['modulus_bits']}/{row['security_bits']}",
            "what": "what",
            "who": "who",
            "values/s": lambda row: f"{row['values_per_second']:,.0f}",
            "values/CPU s": lambda row: f"{row['values_per_cpu_second']:,.0f}",
            "x straight phe": lambda row: f"{row['times_straight_phe']:,.1f}",
            "x packed phe": lambda row: f"{row['times_phe_packed']:,.1f}",
            "target": lambda row: (
                f"{goal:,.0f}" if (goal := row["target_values_per_second"]) else "-"
            ),
            "bytes/value": "bytes_per_value",
            "table s": "table_seconds",
        },
        rows,
        "Bits: modulus/security. Medians of jobs that take turns; adding includes every check.",
    )
    write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
