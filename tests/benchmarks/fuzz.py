"""Hostile bytes for the aggregator: none crashes it, none is added, none makes it allocate.

`python -m tests.benchmarks.fuzz --count 1000000` (or PRIVAGG_FUZZ=1000000 with the test suite) runs
the big count; the test suite runs a small one. Two attackers take part: one on the network, who
alters frames of others, and one on the roster, who signs whatever it likes with its own key.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privagg.digest import tree_digest
from privagg.errors import PrivaggError
from privagg.identity.keys import Identity, Roster
from privagg.protocol.aggregator import Aggregator, RoundTerms
from privagg.protocol.frames import Message
from privagg.protocol.messages import OpenRequest, Upload
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.scheme import Requirement
from privagg.secure.wire import EncryptedTensor, contributor_bitmap

NAMES = ("anna", "bert", "carl", "dora")
INSIDER = "carl"
_FRAME = struct.Struct("<4sBBIQ")
_SAMPLE_EVERY = 101  # inputs between two whose allocations are traced, which is slow
_ALLOWANCE_BYTES = 1 << 20  # for parsing headers, whatever they say


@dataclass
class Outcome:
    """What a run of the fuzzer saw."""

    inputs: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    most_allocated_bytes: int = 0
    largest_input_bytes: int = 0
    seconds: float = 0.0


class Fuzzer:
    """One round with an honest sum in it, and hostile inputs against it.

    Args:
        name: the scheme whose uploads are attacked.
        seed: of the deterministic generator that makes the inputs.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        chosen = find_scheme(name)
        parameters = chosen.choose_parameters(Requirement(40, 1000, 4000, 4))
        self.key = key_generator(chosen.name).generate_key(parameters)
        self.scheme, self.parameters = chosen, self.key.encryption_key.parameters
        self.identities = {name: Identity.generate(name) for name in (*NAMES, "mallory")}
        self.roster = Roster.of(*(self.identities[name] for name in NAMES))
        self.terms = RoundTerms(
            run="run-7", round=3, attempt=1, plan_digest="ab" * 32,
            key_id=self.key.encryption_key.key_id, dimension=40, names=NAMES, cohort=NAMES,
            minimum_survivors=2, strict=False,
        )  # fmt: skip
        self.values = self.rng.integers(-1000, 1000, (4, 40), dtype=np.int64)
        self.aggregator = Aggregator(self.terms, self.parameters, self.roster)
        self.frames = {name: self.frame(name) for name in NAMES}
        for name in ("anna", "bert"):
            self.aggregator.receive(self.frames[name])
        self.attacks: dict[str, Callable[[], tuple[bytes, str]]] = {
            "truncated": self.truncated,
            "extended": self.extended,
            "bits flipped": self.bits_flipped,
            "bytes overwritten": self.bytes_overwritten,
            "lengths of 100 GB": self.huge_lengths,
            "noise": self.noise,
            "replayed": self.replayed,
            "forged signature": self.forged,
            "insider: residues out of range": self.residues_out_of_range,
            "insider: header of the tensor altered": self.tensor_reheaded,
            "insider: fields of the tensor altered": self.tensor_refielded,
            "insider: message for elsewhere": self.message_for_elsewhere,
            "insider: payload of another size": self.payload_resized,
            "insider: a SEAL file as payload": self.seal_file,
        }

    def tensor(self, name: str, **changes: Any) -> EncryptedTensor:
        place = NAMES.index(name)
        made = EncryptedTensor(
            scheme=self.scheme.name,
            parameters_fingerprint=self.parameters.fingerprint,
            length=40,
            packing=self.parameters.packing,
            contributors=contributor_bitmap([place], len(NAMES)),
            roster_size=len(NAMES),
            payload=memoryview(self.key.encryption_key.encrypt(self.values[place])),
        )
        return replace(made, **changes)

    def frame(self, name: str, tensor: bytes | None = None, **changes: Any) -> bytes:
        facts: dict[str, Any] = {
            "run": self.terms.run,
            "round": self.terms.round,
            "attempt": self.terms.attempt,
            "sender": name,
            "plan_digest": self.terms.plan_digest,
            "key_id": self.terms.key_id,
            "receipt_hash": "cd" * 32,
            "checkpoint": "",
            "generator": "system",
            "noise_stddev_grid": "20",
        }
        payload = self.tensor(name).to_bytes() if tensor is None else tensor
        parameters = self.key.encryption_key.parameters
        inside = payload[-parameters.payload_bytes :]
        facts["key_part_digest"] = tree_digest(parameters.key_part(inside))
        header = Upload(**{**facts, **changes})
        return Message.sign(self.identities[name], header, payload).to_bytes()

    # --- the attacker on the network ---------------------------------------------------------

    def truncated(self) -> tuple[bytes, str]:
        frame = self.frames["dora"]
        return frame[: self.rng.integers(0, len(frame))], ""

    def extended(self) -> tuple[bytes, str]:
        return self.frames["dora"] + self.rng.bytes(int(self.rng.integers(1, 100))), ""

    def bits_flipped(self) -> tuple[bytes, str]:
        frame = bytearray(self.frames["dora"])
        for bit in set(self.rng.integers(0, 8 * len(frame), self.rng.integers(1, 4)).tolist()):
            frame[bit >> 3] ^= 1 << (bit & 7)
        return bytes(frame), ""

    def bytes_overwritten(self) -> tuple[bytes, str]:
        frame = bytearray(self.frames["dora"])
        size = int(self.rng.integers(1, 16))
        # Two times in three within the headers, where structure is.
        reach = len(frame) if self.rng.integers(3) == 0 else 1200
        at = int(self.rng.integers(0, min(reach, len(frame) - size)))
        old = bytes(frame[at : at + size])
        new = self.rng.bytes(size)
        frame[at : at + size] = new if new != old else bytes(b ^ 0xFF for b in old)
        return bytes(frame), ""

    def huge_lengths(self) -> tuple[bytes, str]:
        frame = bytearray(self.frames["dora"])
        huge = (100 * 10**9, 2**32 - 1, 2**63, 2**64 - 1)[self.rng.integers(4)]
        if self.rng.integers(2):
            struct.pack_into("<Q", frame, 10, huge)
        else:
            struct.pack_into("<I", frame, 6, huge % 2**32)
        return bytes(frame), ""

    def noise(self) -> tuple[bytes, str]:
        size = int(self.rng.integers(0, 400))
        head = self.frames["dora"][: int(self.rng.integers(0, 40))]
        return head + self.rng.bytes(size), ""

    def replayed(self) -> tuple[bytes, str]:
        name = str(self.rng.choice(["anna", "bert"]))
        return self.frames[name], name

    def forged(self) -> tuple[bytes, str]:
        mallory = replace(self.identities["mallory"], name="dora")
        message = Message.sign(mallory, self._header_of("dora"), self._hostile_tensor())
        return message.to_bytes(), "dora"

    # --- the attacker on the roster ----------------------------------------------------------

    def residues_out_of_range(self) -> tuple[bytes, str]:
        tensor = bytearray(self._tensor_of(INSIDER))
        head = len(tensor) - self.parameters.payload_bytes
        size = int(self.rng.integers(16, 200))
        at = int(self.rng.integers(head, len(tensor) - size))
        tensor[at : at + size] = b"\xff" * size
        return self._signed(bytes(tensor))

    def tensor_reheaded(self) -> tuple[bytes, str]:
        tensor = bytearray(self._tensor_of(INSIDER))
        head = len(tensor) - self.parameters.payload_bytes
        for _ in range(self.rng.integers(1, 4)):
            at = int(self.rng.integers(0, head))
            tensor[at] ^= int(self.rng.integers(1, 256))
        if self.rng.integers(4) == 0:
            struct.pack_into("<Q", tensor, 10, 100 * 10**9)
        if bytes(tensor) == self._tensor_of(INSIDER):
            tensor[0] ^= 1
        return self._signed(bytes(tensor))

    def tensor_refielded(self) -> tuple[bytes, str]:
        changes: list[dict[str, Any]] = [
            {"parameters_fingerprint": "00" * 32}, {"length": 41}, {"length": 2**62},
            {"scheme": "other"}, {"packing": "other"},
            {"contributors": b"\x0f"}, {"contributors": b"\x08"}, {"contributors": b"\x01"},
            {"roster_size": 5}, {"roster_size": 2**17, "contributors": b"\x04" + bytes(2**14 - 1)},
        ]  # fmt: skip
        chosen = changes[self.rng.integers(len(changes))]
        honest = EncryptedTensor.from_bytes(self._tensor_of(INSIDER), max_bytes=2**40)
        return self._signed(replace(honest, **chosen).to_bytes())

    def message_for_elsewhere(self) -> tuple[bytes, str]:
        changes: list[dict[str, Any]] = [
            {"round": 4}, {"attempt": 2}, {"run": "run-8"}, {"plan_digest": "00" * 32},
            {"key_id": "00" * 32},
        ]  # fmt: skip
        chosen = changes[self.rng.integers(len(changes))]
        return self.frame(INSIDER, self._tensor_of(INSIDER), **chosen), INSIDER

    def payload_resized(self) -> tuple[bytes, str]:
        honest = EncryptedTensor.from_bytes(self._tensor_of(INSIDER), max_bytes=2**40)
        size = int(self.rng.integers(0, 2 * self.parameters.payload_bytes))
        if size == self.parameters.payload_bytes:
            size -= 1
        changed = replace(honest, payload=memoryview(self.rng.bytes(size)))
        return self._signed(changed.to_bytes())

    def seal_file(self) -> tuple[bytes, str]:
        """A ciphertext as SEAL writes it: wrong N, L, scale, is_ntt, count have nowhere to be."""
        honest = EncryptedTensor.from_bytes(self._tensor_of(INSIDER), max_bytes=2**40)
        body = struct.pack(
            "<32sBQQQdQ", self.rng.bytes(32), 0, 3, 1 << int(self.rng.integers(10, 60)),
            int(self.rng.integers(0, 2**63)), -1.0, 0,
        )  # fmt: skip
        head = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 2, 0, 100 * 10**9)
        payload = head + body + bytes(honest.payload)
        if self.rng.integers(2):  # cut to the right size, so that only the residues are wrong
            payload = payload[: self.parameters.payload_bytes - 64] + b"\xff" * 64
        return self._signed(replace(honest, payload=memoryview(payload)).to_bytes())

    # --- running -------------------------------------------------------------------------------

    def run(self, count: int) -> Outcome:
        """Feed `count` inputs, each attack in turn, and check what the aggregator did."""
        outcome = Outcome()
        before = self.aggregator.open_request(self.identities["anna"]).payload_digest
        started = time.perf_counter()
        attacks = list(self.attacks.items())
        for number in range(count):
            kind, attack = attacks[number % len(attacks)]
            data, signer = attack()
            self._feed(outcome, kind, data, signer, traced=number % _SAMPLE_EVERY == 0)
            if number % 5000 == 0:
                self._require_untouched(outcome, before)
        outcome.seconds = time.perf_counter() - started
        self._require_untouched(outcome, before)
        self._require_exact_sum(outcome)
        return outcome

    def _feed(self, outcome: Outcome, kind: str, data: bytes, signer: str, *, traced: bool) -> None:
        outcome.inputs += 1
        outcome.kinds[kind] += 1
        outcome.largest_input_bytes = max(outcome.largest_input_bytes, len(data))
        if traced:
            tracemalloc.start()
        try:
            self.aggregator.receive(data)
            outcome.failures.append(f"{kind}: was added")
        except PrivaggError as error:
            outcome.errors[type(error).__name__] += 1
            if signer and signer not in str(error):
                outcome.failures.append(f"{kind}: {error} does not name {signer}")
        except Exception as error:  # what the fuzzer is for: anything else is a crash
            outcome.failures.append(f"{kind}: {type(error).__name__}: {error}")
        if traced:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            outcome.most_allocated_bytes = max(outcome.most_allocated_bytes, peak)
            if peak > 2 * len(data) + _ALLOWANCE_BYTES:
                outcome.failures.append(f"{kind}: {peak} bytes for an input of {len(data)}")

    def _require_untouched(self, outcome: Outcome, before: str) -> None:
        if self.aggregator.contributors != ("anna", "bert"):
            outcome.failures.append(f"contributors became {self.aggregator.contributors}")
        if self.aggregator.open_request(self.identities["anna"]).payload_digest != before:
            outcome.failures.append("the running sum changed")

    def _require_exact_sum(self, outcome: Outcome) -> None:
        self.aggregator.receive(self.frames["dora"])
        request = self.aggregator.open_request(self.identities["anna"])
        assert isinstance(request.header, OpenRequest)
        whole = memoryview(request.payload)[: request.header.tensor_bytes]
        summed = EncryptedTensor.from_bytes(whole, max_bytes=2**40)
        share = self.key.open_share(summed.payload, 3)
        opened = self.scheme.combine(self.parameters, [share], 3)
        wanted: NDArray[np.int64] = self.values[[0, 1, 3]].sum(axis=0)
        if opened.tolist() != wanted.tolist():
            outcome.failures.append("the sum of the honest uploads is wrong")

    def _tensor_of(self, name: str) -> bytes:
        """The honest tensor inside a prepared frame."""
        frame = self.frames[name]
        header, payload = _FRAME.unpack_from(frame)[3:]
        return frame[_FRAME.size + header : _FRAME.size + header + payload]

    def _header_of(self, name: str) -> Upload:
        frame = self.frames[name]
        header = _FRAME.unpack_from(frame)[3]
        return Upload.model_validate_json(frame[_FRAME.size : _FRAME.size + header])

    def _hostile_tensor(self) -> bytes:
        return self._tensor_of("dora")[:-8] + self.rng.bytes(8)

    def _signed(self, tensor: bytes) -> tuple[bytes, str]:
        header = self._header_of(INSIDER)
        return Message.sign(self.identities[INSIDER], header, tensor).to_bytes(), INSIDER


def wanted_count(default: int) -> int:
    """Inputs to run: PRIVAGG_FUZZ where it is set, else the default."""
    text = os.environ.get("PRIVAGG_FUZZ", "")
    return int(text) if text.isdigit() and int(text) > 0 else default


def main() -> None:
    """Run the fuzzer and print what it saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=wanted_count(100_000))
    parser.add_argument("--scheme", default="bfv")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    outcome = Fuzzer(arguments.scheme, arguments.seed).run(arguments.count)
    print(f"{outcome.inputs:,} hostile inputs in {outcome.seconds:.0f} s ({arguments.scheme})")
    for name, count in outcome.errors.most_common():
        print(f"  {name:24} {count:>10,}")
    print(
        f"  most allocated for one input (sampled): {outcome.most_allocated_bytes:,} bytes; "
        f"largest input: {outcome.largest_input_bytes:,} bytes"
    )
    print(f"  failures: {len(outcome.failures)}", *outcome.failures[:20], sep="\n    ")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({**vars(outcome), "scheme": arguments.scheme}, file, indent=1)
    raise SystemExit(1 if outcome.failures else 0)


if __name__ == "__main__":
    main()
