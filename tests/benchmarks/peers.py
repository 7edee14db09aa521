"""A round's aggregation, whole: privagg's against NVIDIA FLARE's and Flower's, in one run.

`make peers` once, then `python -m tests.benchmarks.peers [--quick] [--full] [--json FILE] [--plot
FILE]`. Every job takes the sites' uploads as bytes and ends with their sum; parsing, signatures and
checks are in it wherever the framework has them. Jobs take turns and every ratio is within the run.
--full adds 25.6 million parameters from 4 sites (8 GB of memory).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from privagg.digest import tree_digest
from privagg.identity.keys import Identity, Roster, forget_signatures
from privagg.protocol.aggregator import TOGETHER, Aggregator, RoundTerms
from privagg.protocol.frames import Message, forget_headers, read_message
from privagg.protocol.key_parts import split_key_parts
from privagg.protocol.messages import Release, Upload
from privagg.secure.masked.rule import Rule
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement
from privagg.secure.wire import EncryptedTensor, contributor_bitmap
from tests.benchmarks.kernels import random_payloads, read_job, tenseal_job
from tests.benchmarks.masked_cohort import Cohort
from tests.benchmarks.tables import show, write_json

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".peers"
SIZES = ((10_000, 4), (10_000, 64), (1_000_000, 4), (1_000_000, 64))
QUICK, FULL = ((10_000, 4),), (*SIZES, (25_600_000, 4))
SHARES = "Flower 1.41 SecAgg+, its shares combined"
RULES = {4: Rule.choose(4, 3, 1), 64: Rule.choose(64, 58, 6)}
PHE_VALUES = 400
DIGEST = "ab" * 32


@dataclass(frozen=True)
class Job:
    """Something that can be timed.

    Args:
        run: does it once; returns (seconds, processor seconds).
        additions: parameters times uploads that it adds.
        upload_bytes: of one upload, for each parameter.
    """

    run: Callable[[], tuple[float, float]]
    additions: int
    upload_bytes: float


class PeerProcess:
    """A framework in a process of its own environment; it speaks `peer_protocol`."""

    def __init__(self, environment: str, script: str, *arguments: str) -> None:
        command = [str(PEERS / environment / "bin" / "python"), script, *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, request: dict[str, int]) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended early; run it by hand to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def job(self, parameters: int, sites: int, **more: int) -> Job:
        """Have the peer make uploads of this size; the job adds them."""
        size = self.ask({"parameters": parameters, "sites": sites, **more})["bytes"]

        def run() -> tuple[float, float]:
            answer = self.ask({})
            return answer["seconds"], answer["processor_seconds"]

        return Job(run, parameters * sites, size / parameters)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


def start_peers() -> dict[str, PeerProcess]:
    """The frameworks whose environments are there."""
    known = {
        "NVIDIA FLARE 2.9, CKKS": ("flare", "peer_flare.py"),
        "Flower 1.41 FedAvg, nothing encrypted": ("flower", "peer_flower.py", "fedavg"),
        "Flower 1.41 SecAgg+, masked": ("flower", "peer_flower.py", "secagg"),
        SHARES: ("flower", "peer_flower.py", "shares"),
    }
    found = {k: v for k, v in known.items() if (PEERS / v[0] / "bin" / "python").exists()}
    if len(found) < len(known):
        print("some peers are not installed and left out; `make peers` installs them")
    return {name: PeerProcess(*command) for name, command in found.items()}


def timed(work: Callable[[], object]) -> Callable[[], tuple[float, float]]:
    """The work, timed in this process."""

    def run() -> tuple[float, float]:
        seconds, processor = time.perf_counter(), time.process_time()
        work()
        return time.perf_counter() - seconds, time.process_time() - processor

    return run


def upload_frames(
    terms: RoundTerms, parameters: Any, identities: list[Identity], sent: list[tuple[bytes, bytes]]
) -> list[bytes]:
    """Every site's signed frame, around its payload and what is attached to it."""
    frames = []
    for place, (identity, (payload, attachments)) in enumerate(zip(identities, sent, strict=True)):
        part = tree_digest(parameters.key_part(payload) + attachments)
        tensor = EncryptedTensor(
            parameters.scheme, parameters.fingerprint, terms.dimension, parameters.packing,
            contributor_bitmap([place], len(terms.names)), len(terms.names), memoryview(payload),
        ).to_bytes()  # fmt: skip
        header = Upload(
            run=terms.run, round=terms.round, attempt=terms.attempt, sender=identity.name,
            plan_digest=terms.plan_digest, key_id=terms.key_id, key_part_digest=part,
            receipt_hash="", checkpoint="",
            generator="", noise_stddev_grid="",
        )  # fmt: skip
        frames.append(Message.sign(identity, header, tensor + attachments).to_bytes())
    return frames


def forget_frames() -> None:
    """A round's frames are new ones: nothing of them was read or verified before."""
    forget_signatures()
    forget_headers()


def privagg_job(name: str, length: int, sites: int) -> Job:
    """The aggregator as a round uses it: frames in, the request to open out."""
    requirement = Requirement(length, 32_767, (1 << 21) - 1, 64)
    parameters = scheme(name).choose_parameters(requirement)
    identities = [Identity.generate(f"site{i}") for i in range(sites)]
    names = tuple(identity.name for identity in identities)
    terms = RoundTerms("bench", 1, 1, DIGEST, DIGEST, length, names, names, 2, False)
    payload = random_payloads(parameters.layout, 1)[0]
    frames = upload_frames(terms, parameters, identities, [(payload, b"")] * sites)
    roster = Roster.of(*identities)

    def work() -> None:
        forget_frames()
        aggregator = Aggregator(terms, parameters, roster)
        for at in range(0, sites, TOGETHER):
            aggregator.receive_many([(None, frame) for frame in frames[at : at + TOGETHER]])
        aggregator.open_request(identities[0])

    return Job(timed(work), length * sites, len(frames[0]) / length)


def masked_job(length: int, sites: int, missing: int) -> Job:
    """The aggregator under masks: uploads in, the sites' releases in, integers out."""
    cohort = Cohort(length, RULES[sites])
    parameters, names = cohort.parameters, cohort.occasion.members
    identities = [Identity.generate(name) for name in names]
    terms = RoundTerms("bench", 1, 1, DIGEST, DIGEST, length, names, names, 2, False)
    sent = [(masked.payload, masked.attachments) for masked in cohort.masked.values()]
    frames = upload_frames(terms, parameters, identities, sent)[missing:]
    roster, listed = Roster.of(*identities), names[missing:]
    given = release_frames(cohort, terms, identities, listed)

    def work() -> None:
        forget_frames()
        aggregator = Aggregator(
            terms, parameters, roster, recovery=parameters.recovery(cohort.occasion)
        )
        for at in range(0, len(frames), TOGETHER):
            aggregator.receive_many([(None, frame) for frame in frames[at : at + TOGETHER]])
        request = aggregator.open_request(identities[0])
        summed, parts = split_key_parts(
            parameters, len(listed), memoryview(request.payload).cast("B")
        )
        recovery = parameters.recovery(cohort.occasion)
        for name, part in zip(listed, parts, strict=True):
            recovery.add(name, part)
        releases = {name: read_message(frame, roster).payload for name, frame in given.items()}
        total = EncryptedTensor.from_bytes(summed, max_bytes=summed.nbytes).payload
        opened = recovery.unmask(total, listed, releases)
        if opened.total is None:
            raise SystemExit(f"an honest sum was not opened: {opened.problem}")

    return Job(timed(work), length * len(listed), len(frames[0]) / length)


def release_frames(
    cohort: Cohort, terms: RoundTerms, identities: list[Identity], listed: tuple[str, ...]
) -> dict[str, bytes]:
    """What the fewest sites that suffice release, each in its signed frame."""
    recovery, frames = cohort.read(listed), {}
    holders = cohort.rule.threshold if cohort.rule.is_full else len(listed)
    for identity in [each for each in identities if each.name in listed][:holders]:
        header = Release(
            run=terms.run, round=terms.round, attempt=terms.attempt, sender=identity.name,
            plan_digest=DIGEST, key_id=DIGEST, list_digest=DIGEST, contributors=listed,
        )  # fmt: skip
        released = cohort.release(identity.name, listed, recovery)
        frames[identity.name] = Message.sign(identity, header, released).to_bytes()
    return frames


def straight_jobs(length: int, sites: int) -> dict[str, Job]:
    """What one would write without a framework; TenSEAL and phe on a part, being linear."""
    from phe import paillier

    words = np.random.default_rng(5).normal(size=length).astype(np.float32)
    read = read_job([words.tobytes() for _ in range(4)])

    def numpy_sum() -> None:
        total = np.frombuffer(words.tobytes(), dtype=np.float32).copy()
        for _ in range(sites - 1):
            total += words

    part = min(length, 16 * 4096) // 4096 * 4096
    tenseal_sum, tenseal_bytes = tenseal_job(part)
    public = paillier.generate_paillier_keypair(n_length=2048)[0]
    few = [public.encrypt(value) for value in (1, 2)]

    def phe_sum() -> None:
        for _ in range(PHE_VALUES):
            few[0] + few[1]

    return {
        "reading float32 uploads": Job(
            timed(lambda: [read() for _ in range(sites // 4)]),
            length * sites, 4.0,
        ),
        "numpy, float32, nothing encrypted": Job(timed(numpy_sum), length * sites, 4.0),
        "TenSEAL, a straight loop": Job(timed(tenseal_sum), part * 4, tenseal_bytes / 4 / part),
        "phe 2048, a straight loop": Job(timed(phe_sum), PHE_VALUES, 512.0),
    }  # fmt: skip


def measure(
    length: int, sites: int, rounds: int, peers: dict[str, PeerProcess]
) -> list[dict[str, Any]]:
    """Rows for one size."""
    jobs = {f"privagg {name.upper()}": privagg_job(name, length, sites) for name in ("bfv", "ckks")}
    jobs["privagg, masked, unmasking in it"] = masked_job(length, sites, 0)
    if sites == 64:
        jobs["privagg, masked, 1 missing"] = masked_job(length, sites, 1)
    jobs |= straight_jobs(length, sites)
    rule = RULES[sites]
    dealt = {"threshold": rule.threshold, "holders": rule.neighbours + 1}
    jobs |= {
        name: peer.job(length, sites, **(dealt if name == SHARES else {}))
        for name, peer in peers.items()
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    skipped = rounds > 1  # the first turn compiles and touches memory; one alone must count
    for turn in range(rounds + skipped):
        for name, job in jobs.items():
            cost = job.run()
            if turn >= skipped:
                spent[name].append(cost)
    rate = {
        name: job.additions / statistics.median(wall for wall, _ in spent[name])
        for name, job in jobs.items()
    }
    processor_rate = {
        name: job.additions / statistics.median(processor for _, processor in spent[name])
        for name, job in jobs.items()
    }
    ours = "privagg BFV"
    return [
        {
            "what": name,
            "parameters": length,
            "sites": sites,
            "rounds": rounds,
            "bytes_per_parameter": job.upload_bytes,
            "million_parameters_per_second": rate[name] / 1e6,
            "million_parameters_per_processor_second": processor_rate[name] / 1e6,
            "privagg_bfv_is_times": rate[ours] / rate[name],
            "privagg_bfv_is_times_by_processor_time": processor_rate[ours] / processor_rate[name],
            "processor_ms": 1e3 * statistics.median(processor for _, processor in spent[name]),
        }
        for name, job in jobs.items()
    ]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars for every size: million parameters added a second, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = list(dict.fromkeys((row["parameters"], row["sites"]) for row in rows))
    figure, axes = pyplot.subplots(
        len(sizes), 1, figsize=(8, 2.4 * len(sizes)), sharex=True, squeeze=False
    )
    for axis, (parameters, sites) in zip(axes[:, 0], sizes, strict=True):
        shown = [row for row in rows if (row["parameters"], row["sites"]) == (parameters, sites)]
        shown.sort(key=lambda row: row["million_parameters_per_second"])
        colours = ["tab:blue" if row["what"].startswith("privagg") else "silver" for row in shown]
        names = [f"{row['what']} ({row['bytes_per_parameter']:.1f} B)" for row in shown]
        axis.barh(names, [row["million_parameters_per_second"] for row in shown], color=colours)
        axis.set_xscale("log")
        axis.tick_params(labelsize=7)
        axis.set_title(f"{parameters:,} parameters, {sites} sites", fontsize=9)
    axes[-1, 0].set_xlabel("million parameters of uploads added a second (bytes a parameter)")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest size alone")
    parser.add_argument("--full", action="store_true", help="25.6 million parameters, too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path("out/peers.json"))
    parser.add_argument("--plot", metavar="FILE", type=Path, default=Path("out/peers.png"))
    arguments = parser.parse_args()
    peers = start_peers()
    rows: list[dict[str, Any]] = []
    for length, sites in QUICK if arguments.quick else FULL if arguments.full else SIZES:
        # A round of FLARE takes minutes here; smaller sizes have warmed everything up before.
        rounds = 1 if length * sites > 20_000_000 else arguments.rounds
        rows += measure(length, sites, rounds, peers)
    for peer in peers.values():
        peer.close()
    show(
        "A round's uploads to their sum, from bytes to bytes",
        {
            "parameters": lambda row: f"{row['parameters']:,}",
            "sites": "sites",
            "what": "what",
            "upload bytes each": "bytes_per_parameter",
            "M parameters/s": "million_parameters_per_second",
            "M/CPU s": "million_parameters_per_processor_second",
            "CPU ms": "processor_ms",
            "privagg BFV is x": "privagg_bfv_is_times",
            "by CPU time": "privagg_bfv_is_times_by_processor_time",
        },
        rows,
        "Medians of jobs that take turns. Flower's FedAvg and numpy add plaintext. SecAgg+'s "
        "server does both of its rows; ours has shares and signatures in its one.",
    )
    write_json(arguments.json, rows)
    plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
