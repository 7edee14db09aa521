"""Adding encrypted tensors: residue kernels against memory, numpy and TenSEAL, in one run.

`python -m tests.benchmarks.kernels [--quick] [--json FILE] [--plot FILE]`. Every figure is a median
over rounds in which all jobs take turns; every ratio is of two figures of the same run.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.identity import Identity, Roster
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import ResidueSum, default_backend, pack_residues
from privagg.messages import Message, Upload, read_message
from privagg.secure.bfv import BfvScheme
from privagg.secure.rns import ntt_prime
from privagg.secure.scheme import Requirement
from privagg.threads import available_cpus, run_split
from tests.benchmarks.tables import show, write_json
from tests.benchmarks.timing import medians

STREAMS = 4
CKKS_DEGREE, CKKS_SLOTS = 8192, 4096  # what TenSEAL's tutorials use: [60, 40, 60]
Words = NDArray[np.uint64]


def default_chain() -> tuple[int, ...]:
    """The two ciphertext primes of TenSEAL's usual CKKS chain."""
    primes = [ntt_prime(CKKS_DEGREE, bits, 0) for bits in (60, 40)]
    return tuple(prime for prime in primes if prime is not None)


def random_payloads(layout: ResidueLayout, count: int) -> list[bytes]:
    """Payloads of uniform residues."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(count):
        rows = [
            rng.integers(0, q, n, dtype=np.uint64)
            for q, n in zip(layout.moduli, layout.counts, strict=True)
        ]
        made.append(pack_residues(layout, np.concatenate(rows)))
    return made


def read_job(payloads: list[bytes]) -> Callable[[], object]:
    """Read every payload once with all threads, four streams at a time: as fast as memory goes."""
    import numba

    def read(a: Words, b: Words, c: Words, d: Words) -> int:
        total = np.uint64(0)
        for j in range(a.size):
            total ^= a[j] ^ b[j] ^ c[j] ^ d[j]
        return int(total)

    compiled: Any = numba.njit(nogil=True)(read)
    views = [np.frombuffer(p, dtype=np.uint64, count=len(p) // 8) for p in payloads]

    def part(number: int, first: int, last: int) -> None:
        compiled(*(view[first:last] for view in views))

    return lambda: run_split(part, views[0].size, available_cpus())


def numpy_job(layout: ResidueLayout, payloads: list[bytes]) -> Callable[[], object]:
    """Plain numpy on the same words: add lazily, reduce once; no range check."""
    views = [np.frombuffer(p, dtype=np.uint64).reshape(len(layout.moduli), -1) for p in payloads]
    moduli = np.array(layout.moduli, dtype=np.uint64)[:, None]

    def job() -> Words:
        total = views[0].copy()
        for view in views[1:]:
            total += view
        reduced: Words = total % moduli
        return reduced

    return job


def sum_job(layout: ResidueLayout, payloads: list[bytes]) -> Callable[[], object]:
    """The range-checked running sum."""
    running = ResidueSum(layout)

    def job() -> None:
        if any(fault is not None for fault in running.add(payloads)):
            raise SystemExit("an honest payload was refused")

    return job


def tenseal_job(parameters: int) -> tuple[Callable[[], object], int]:
    """A straight TenSEAL loop: read serialised vectors and add them; and their bytes."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, CKKS_DEGREE, -1, [60, 40, 60])
    context.global_scale = 2.0**40
    vectors = parameters // CKKS_SLOTS
    rng = np.random.default_rng(2)
    one = [
        tenseal.ckks_vector(context, rng.normal(size=CKKS_SLOTS)).serialize()
        for _ in range(vectors)
    ]

    def job() -> None:
        sums = [tenseal.ckks_vector_from(context, data) for data in one]
        for _ in range(STREAMS - 1):
            for total, data in zip(sums, one, strict=True):
                total += tenseal.ckks_vector_from(context, data)

    return job, STREAMS * sum(map(len, one))


def sums(parameters: int, rounds: int) -> list[dict[str, Any]]:
    """Rates of adding four uploads of `parameters` parameters."""
    chain = default_chain()
    rows_needed = -(-parameters // CKKS_SLOTS) * 2
    moduli, counts = chain * rows_needed, (CKKS_DEGREE,) * (2 * rows_needed)
    words = ResidueLayout(moduli, counts, packed=False)
    requirement = Requirement(parameters, 32_767, (1 << 21) - 1, 64)
    bfv = BfvScheme().choose_parameters(requirement)
    word_payloads = random_payloads(words, STREAMS)
    bfv_payloads = random_payloads(bfv.layout, STREAMS)
    straight = parameters // 16 // CKKS_SLOTS * CKKS_SLOTS or CKKS_SLOTS
    tenseal, tenseal_bytes = tenseal_job(straight)
    seconds = medians(
        {
            "read": read_job(word_payloads),
            "words": sum_job(words, word_payloads),
            "bits": sum_job(bfv.layout, bfv_payloads),
            "numpy": numpy_job(words, word_payloads),
            "tenseal": tenseal,
        },
        rounds,
    )
    read_rate = STREAMS * words.payload_bytes / seconds["read"]
    facts = {
        "words": ("residues as words, checked, CKKS [60,40]", words.payload_bytes, parameters),
        "bits": ("residues as bits, checked, BFV 22-bit sums", bfv.payload_bytes, parameters),
        "numpy": ("plain numpy, unchecked, CKKS [60,40]", words.payload_bytes, parameters),
        "tenseal": ("TenSEAL: deserialise and add", tenseal_bytes // STREAMS, straight),
        "read": ("reading memory", words.payload_bytes, parameters),
    }
    tenseal_rate = STREAMS * straight / seconds["tenseal"]
    return [
        {
            "what": what,
            "parameters": count,
            "uploads": STREAMS,
            "threads": available_cpus(),
            "gigabytes_per_second": STREAMS * size / seconds[name] / 1e9,
            "of_read_bandwidth": STREAMS * size / seconds[name] / read_rate,
            "million_parameters_per_second": STREAMS * count / seconds[name] / 1e6,
            "times_tenseal": STREAMS * count / seconds[name] / tenseal_rate,
        }
        for name, (what, size, count) in facts.items()
    ]


def memory(parameters: int) -> dict[str, Any]:
    """The aggregator's peak memory for 64 sites against 4, uploads arriving one at a time."""
    chosen = BfvScheme().choose_parameters(Requirement(parameters, 32_767, (1 << 21) - 1, 64))
    payload = random_payloads(chosen.layout, 1)[0]
    peaks = {}
    for sites in (4, 64):
        tracemalloc.start()
        fold = chosen.fold()
        for _ in range(sites):
            fold.add(payload)
        fold.payload()
        peaks[sites] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return {
        "what": "aggregator's peak memory, 64 sites / 4 sites",
        "parameters": parameters,
        "bytes_4_sites": peaks[4],
        "bytes_64_sites": peaks[64],
        "ratio": peaks[64] / peaks[4],
    }


def end_to_end(parameters: int, rounds: int) -> dict[str, Any]:
    """Uploads from frame to sum, signature check included."""
    chosen = BfvScheme().choose_parameters(Requirement(parameters, 32_767, (1 << 21) - 1, 64))
    payload = random_payloads(chosen.layout, 1)[0]
    site = Identity.generate("site")
    header = Upload(
        run="bench", round=1, attempt=1, sender="site", plan_digest="ab" * 32, key_id="cd" * 32,
        receipt_hash="", checkpoint="", generator="", noise_stddev_grid="",
    )  # fmt: skip
    frame, roster = Message.sign(site, header, payload).to_bytes(), Roster.of(site)
    running = ResidueSum(chosen.layout)

    def job() -> None:
        running.add([read_message(frame, roster).payload])

    seconds = medians({"frame": job}, rounds)["frame"]
    return {
        "what": "aggregator end to end, one upload: signature, check, add",
        "parameters": parameters,
        "gigabytes_per_second": len(frame) / seconds / 1e9,
        "million_parameters_per_second": parameters / seconds / 1e6,
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars: million parameters added a second, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3))
    shown = [row for row in rows if "times_tenseal" in row]
    names = [f"{row['what']}\n{row['parameters']:,} parameters" for row in shown]
    axes.barh(names, [row["million_parameters_per_second"] for row in shown])
    axes.set_xscale("log")
    axes.set_xlabel("million parameters added a second")
    axes.invert_yaxis()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small size, few rounds")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--plot", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    sizes = (100_000,) if arguments.quick else (10_000, 1_000_000)
    rounds = 5 if arguments.quick else 15
    rows: list[dict[str, Any]] = []
    for parameters in sizes:
        rows += sums(parameters, rounds)
    rows.append(end_to_end(sizes[-1], rounds))
    rows.append(memory(sizes[-1]))
    show(
        f"Sums of encrypted tensors ({default_backend()}, {available_cpus()} threads)",
        {
            "what": "what",
            "parameters": lambda row: f"{row['parameters']:,}",
            "GB/s": "gigabytes_per_second",
            "of read bandwidth": "of_read_bandwidth",
            "M parameters/s": "million_parameters_per_second",
            "x TenSEAL": "times_tenseal",
            "memory 64/4": "ratio",
        },
        rows,
        "Medians of jobs that take turns; ratios within this run.",
    )
    write_json(arguments.json, rows)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
