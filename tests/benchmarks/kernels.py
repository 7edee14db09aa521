"""Adding encrypted tensors: residue kernels against memory, numpy and TenSEAL, in one run.

`python -m tests.benchmarks.kernels [--quick | --full] [--json FILE] [--plot FILE]`. Every figure is
a median over rounds in which all jobs take turns; every ratio is of two figures of the same run. A
sum's share of the read bandwidth is against reading the very same buffers. --full adds 64
uploads and 25.6 million parameters (10 GB of memory).

TenSEAL's tutorials put 4,096 values into a ciphertext of two primes: read as words that is 64 bytes
a parameter, so memory that is read at R GB/s bounds such a sum to R / 64 * 1000 million parameters
a second, whoever adds. privagg's CKKS puts 4,096 values into one prime (16 bytes a parameter as
words, 11.3 as bits), and so has a bound four to six times as high.
"""

from __future__ import annotations

import argparse
import statistics
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.digest import tree_digest
from privagg.identity.keys import Identity, Roster, forget_signatures
from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import ResidueSum, default_backend, pack_residues
from privagg.protocol.aggregator import TOGETHER
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import Upload
from privagg.secure.bfv import BfvScheme
from privagg.secure.ckks import CkksScheme
from privagg.secure.rns import ntt_prime
from privagg.secure.scheme import Requirement
from privagg.threads import available_cpus, run_split
from tests.benchmarks.tables import show, write_json
from tests.benchmarks.timing import medians, metered

STREAMS = 4  # uploads that are read side by side; every upload lies in memory of its own
CKKS_DEGREE, CKKS_SLOTS = 8192, 4096  # what TenSEAL's tutorials use: [60, 40, 60]
GROUPED = ((10_000, 64), (100_000, 16), (1_000_000, 16))
Words = NDArray[np.uint64]


def default_chain() -> tuple[int, ...]:
    """The two ciphertext primes of TenSEAL's usual CKKS chain."""
    primes = [ntt_prime(CKKS_DEGREE, bits, 0) for bits in (60, 40)]
    return tuple(prime for prime in primes if prime is not None)


def random_payloads(layout: ResidueLayout, count: int) -> list[bytes]:
    """Payloads of uniform residues: the same ones, each in memory of its own."""
    rng = np.random.default_rng(1)
    rows = [
        rng.integers(0, q, n, dtype=np.uint64)
        for q, n in zip(layout.moduli, layout.counts, strict=True)
    ]
    payload = pack_residues(layout, np.concatenate(rows))
    return [payload, *(bytes(bytearray(payload)) for _ in range(count - 1))]


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
        for at in range(0, len(views), STREAMS):
            compiled(*(view[first:last] for view in views[at : at + STREAMS]))

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


def layouts(parameters: int) -> dict[str, tuple[str, ResidueLayout]]:
    """What is added: name -> description, layout."""
    chain = default_chain()
    rows = -(-parameters // CKKS_SLOTS) * 2
    requirement = Requirement(parameters, 32_767, (1 << 21) - 1, 64)
    ckks, bfv = CkksScheme(), BfvScheme()
    return {
        "tutorial": (
            "TenSEAL's tutorial chain [60,40], words",
            ResidueLayout(chain * rows, (CKKS_DEGREE,) * (2 * rows), packed=False),
        ),
        "ckks words": (
            "privagg CKKS, words",
            ckks.choose_parameters(requirement, packed=False).layout,
        ),
        "ckks": ("privagg CKKS, bits (default)", ckks.choose_parameters(requirement).layout),
        "bfv": ("privagg BFV, bits (default)", bfv.choose_parameters(requirement).layout),
    }


def sums(parameters: int, uploads: int, rounds: int) -> list[dict[str, Any]]:
    """Rates of adding uploads of `parameters` parameters."""
    made = layouts(parameters)
    payloads = {name: random_payloads(layout, uploads) for name, (_, layout) in made.items()}
    straight = min(parameters, 16 * CKKS_SLOTS) // CKKS_SLOTS * CKKS_SLOTS
    tenseal, tenseal_bytes = tenseal_job(straight)
    jobs: dict[str, Callable[[], object]] = {}
    for name, (_, layout) in made.items():
        jobs[name] = sum_job(layout, payloads[name])
        jobs[f"read {name}"] = read_job(payloads[name])
    jobs["numpy"] = numpy_job(made["tutorial"][1], payloads["tutorial"])
    jobs["tenseal"] = tenseal
    facts = {
        name: (f"{what}, checked", layout.payload_bytes, parameters, uploads)
        for name, (what, layout) in made.items()
    }
    size = made["tutorial"][1].payload_bytes
    facts["numpy"] = ("numpy on the tutorial chain, unchecked", size, parameters, uploads)
    facts["tenseal"] = ("TenSEAL: read and add", tenseal_bytes // STREAMS, straight, STREAMS)
    seconds = medians(jobs, rounds)
    reading = {
        name: uploads * layout.payload_bytes / seconds[f"read {name}"]
        for name, (_, layout) in made.items()
    }
    rows = []
    for name, (what, size, count, many) in facts.items():
        rate, read_rate = many * size / seconds[name], reading.get(name, reading["tutorial"])
        added = many * count / seconds[name]
        rows.append({
            "what": what,
            "parameters": count,
            "uploads": many,
            "threads": available_cpus(),
            "bytes_per_parameter": size / count,
            "gigabytes_per_second": rate / 1e9,
            "read_gigabytes_per_second": read_rate / 1e9,
            "of_read_bandwidth": rate / read_rate,
            "million_parameters_per_second": added / 1e6,
            "bound_million_parameters_per_second": read_rate / (size / count) / 1e6,
            "times_tenseal": added * seconds["tenseal"] / (STREAMS * straight),
        })  # fmt: skip
    return rows


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


def together(parameters: int, uploads: int, rounds: int) -> dict[str, Any]:
    """The processor time that adding takes one by one, against a group at a time as in a round."""
    chosen = BfvScheme().choose_parameters(Requirement(parameters, 32_767, (1 << 21) - 1, 64))
    payloads = random_payloads(chosen.layout, uploads)
    spent: dict[int, list[float]] = {1: [], TOGETHER: []}

    def added(size: int) -> Callable[[], object]:
        def job() -> None:
            fold = chosen.fold()
            for at in range(0, uploads, size):
                if any(fold.add_many(payloads[at : at + size])):
                    raise SystemExit("an honest payload was refused")

        return metered(job, spent[size])

    medians({str(size): added(size) for size in spent}, rounds)
    return {
        "what": f"BFV, uploads one by one / {TOGETHER} at a time: processor time",
        "parameters": parameters,
        "uploads": uploads,
        "ratio": statistics.median(spent[1]) / statistics.median(spent[TOGETHER]),
    }


def end_to_end(parameters: int, rounds: int) -> dict[str, Any]:
    """Uploads from frame to sum, signature check included."""
    chosen = BfvScheme().choose_parameters(Requirement(parameters, 32_767, (1 << 21) - 1, 64))
    payload = random_payloads(chosen.layout, 1)[0]
    site = Identity.generate("site")
    header = Upload(
        run="bench", round=1, attempt=1, sender="site", plan_digest="ab" * 32, key_id="cd" * 32,
        key_part_digest=tree_digest(chosen.key_part(payload)), receipt_hash="",
        checkpoint="", generator="", noise_stddev_grid="",
    )  # fmt: skip
    frame, roster = Message.sign(site, header, payload).to_bytes(), Roster.of(site)
    running = ResidueSum(chosen.layout)

    def job() -> None:
        forget_signatures()  # every upload is a new one
        running.add([read_message(frame, roster).payload])

    seconds = medians({"frame": job}, rounds)["frame"]
    return {
        "what": "aggregator end to end, one upload: signature, check, add",
        "parameters": parameters,
        "gigabytes_per_second": len(frame) / seconds / 1e9,
        "million_parameters_per_second": parameters / seconds / 1e6,
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars: million parameters added a second, and (thin) what reading memory would allow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if "times_tenseal" in row]
    figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(shown) + 1))
    names = [
        f"{row['what']} ({row['bytes_per_parameter']:.1f} B); "
        f"{row['uploads']} x {row['parameters']:,}"
        for row in shown
    ]
    bounds = [row["bound_million_parameters_per_second"] for row in shown]
    axes.barh(names, bounds, height=0.2, color="silver", label="bound by reading memory")
    rates = [row["million_parameters_per_second"] for row in shown]
    axes.barh(names, rates, height=0.6, color="tab:blue", alpha=0.8, label="measured")
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)
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
    parser.add_argument(
        "--full", action="store_true", help="64 uploads and 25.6 million parameters, too"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path("out/kernels.json"))
    parser.add_argument("--plot", metavar="FILE", type=Path, default=Path("out/kernels.png"))
    arguments = parser.parse_args()
    sizes = ((100_000, 4),) if arguments.quick else ((10_000, 64), (1_000_000, 4), (1_000_000, 16))
    rounds = 5 if arguments.quick else 11
    rows: list[dict[str, Any]] = []
    for parameters, uploads in sizes:
        rows += sums(parameters, uploads, rounds)
    if arguments.full:
        rows += sums(1_000_000, 64, 3) + sums(25_600_000, 4, 3)
    rows += [together(count, many, 5 * rounds) for count, many in GROUPED]
    rows.append(end_to_end(sizes[-1][0], rounds))
    rows.append(memory(sizes[-1][0]))
    show(
        f"Sums of encrypted tensors ({default_backend()}, {available_cpus()} threads)",
        {
            "what": "what",
            "parameters": lambda row: f"{row['parameters']:,}",
            "uploads": "uploads",
            "bytes each": "bytes_per_parameter",
            "GB/s": "gigabytes_per_second",
            "of read bandwidth": "of_read_bandwidth",
            "M parameters/s": "million_parameters_per_second",
            "x TenSEAL": "times_tenseal",
            "ratio": "ratio",
        },
        rows,
        "Medians of jobs that take turns; ratios within this run.",
    )
    write_json(arguments.json, rows)
    plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
