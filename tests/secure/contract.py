"""What every secure aggregation scheme must do; `test_contract.py` runs it over a list of names.

A third party checks its own scheme by naming it there: the suite finds both halves of a scheme by
their entry points.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privagg.encoding.vectors import IntVector
from privagg.errors import (
    CapacityError,
    CiphertextError,
    KeyMismatchError,
    ParameterError,
    PrivaggError,
)
from privagg.secure.opening import KeyGenerator, MaskingKey, key_generator
from privagg.secure.registry import scheme as find_scheme
from privagg.secure.scheme import EncryptionKey, Occasion, Parameters, Requirement, Scheme

REQUIREMENTS = {
    "one small value": Requirement(1, upload_bound=1, sum_bound=2, addends=2),
    "16 bits of 64 sites": Requirement(301, 32_767, 64 * 32_767, 64),
    "sum below the worst case": Requirement(40, 1 << 30, 3 << 29, 5),
    "the widest sums": Requirement(9, 1 << 60, (1 << 62) - 1, 3),
}
CASES = tuple(REQUIREMENTS)


@dataclass(frozen=True)
class Setup:
    """A scheme's two halves with parameters and a key pair, made once for each requirement."""

    scheme: Scheme
    generator: KeyGenerator
    parameters: Parameters
    key: Any
    """A `DecryptionKey`, or one site's `MaskingKey`."""

    @property
    def requirement(self) -> Requirement:
        return self.parameters.requirement

    def encrypt(self, values: IntVector) -> bytes:
        return self.key.encryption_key.encrypt(values)

    def open(self, payload: bytes, count: int) -> IntVector:
        share = self.key.open_share(payload, count)
        return self.scheme.combine(self.parameters, [share], count)

    def draw(self, rng: np.random.Generator, count: int) -> IntVector:
        """`count` contributions whose sum keeps to the bound; int64 (count, d)."""
        requirement = self.requirement
        bound = min(requirement.upload_bound, requirement.sum_bound // count)
        return rng.integers(
            -bound, bound, (count, requirement.length), dtype=np.int64, endpoint=True
        )


class Together(Setup):
    """The same where nobody holds a key: all sites of one round, which begins with each opening.

    Those that a test does not have contribute add zeros, so that all of them release.
    """

    def begin(self, sites: dict[str, MaskingKey], joint: EncryptionKey) -> Self:
        vars(self).update(_sites=sites, _joint=joint, _attempt=0)
        self._begin_round()
        return self

    def _begin_round(self) -> None:
        vars(self).update(_attempt=self._attempt + 1, _masked={}, _next=0)

    @property
    def _occasion(self) -> Occasion:
        return Occasion("run", 1, self._attempt, tuple(self._sites))

    def encrypt(self, values: IntVector) -> bytes:
        names = tuple(self._sites)
        site = names[self._next % len(names)]
        masked = self._sites[site].mask(values, site, self._joint, self._occasion)
        vars(self).update(_next=self._next + 1)
        self._masked[site] = masked
        assert len(masked.attachments) == self.parameters.attachment_bytes
        return masked.payload

    def open(self, payload: bytes, count: int) -> IntVector:
        fold, names = self.parameters.fold(), tuple(self._sites)
        fold.add(payload, addends=count)
        while self._next < len(names):
            fold.add(self.encrypt(np.zeros(self.requirement.length, dtype=np.int64)))
        recovery = self.parameters.recovery(self._occasion)
        assert recovery is not None
        for site in names:
            recovery.add(site, self._masked[site].attachments)
        releases = {
            site: self._sites[site].release(
                site, self._joint, self._occasion, names, recovery.packets(site, names),
                self._masked[site].kept,
            )
            for site in names
        }  # fmt: skip
        found = recovery.unmask(fold.payload(), names, releases)
        self._begin_round()
        assert found.total is not None, found.problem
        return found.total


def setup(name: str, case: str) -> Setup:
    made = _setup(name, case)
    if isinstance(made, Together):
        made._begin_round()
    return made


@cache
def _setup(name: str, case: str) -> Setup:
    found, generator = find_scheme(name), key_generator(name)
    parameters = found.choose_parameters(REQUIREMENTS[case])
    key = generator.generate_key(parameters)
    if isinstance(key, MaskingKey):
        sites = {f"site-{i}": generator.generate_key(parameters)
                 for i in range(parameters.requirement.addends)}  # fmt: skip
        cards = {site: each.encryption_key.to_bytes() for site, each in sites.items()}
        joint = found.joint_key(parameters, epoch="run", roster="who is who", cards=cards)
        return Together(found, generator, parameters, key).begin(sites, joint)
    # A scheme whose modulus is its key completes its parameters there.
    return Setup(found, generator, key.encryption_key.parameters, key)


class SchemeContract:
    """The laws of every scheme; a test class inherits them and supplies the fixture `name`."""

    @pytest.mark.parametrize("case", CASES)
    def test_opening_a_fold_gives_the_exact_sum(self, name: str, case: str) -> None:
        made = setup(name, case)
        rng = np.random.default_rng(20)
        for count in sorted({1, 2, min(5, made.requirement.addends)}):
            values = made.draw(rng, count)
            fold = made.parameters.fold()
            for contribution in values:
                fold.add(made.encrypt(contribution))
            assert fold.count == count
            opened = made.open(fold.payload(), count)
            assert opened.dtype == np.int64
            assert opened.tolist() == values.sum(axis=0).tolist()

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_full_cohort_at_the_bound_is_exact(self, name: str, case: str, sign: int) -> None:
        made = setup(name, case)
        requirement = made.requirement
        reach = min(requirement.sum_bound, requirement.addends * requirement.upload_bound)
        fold, left = made.parameters.fold(), reach
        for _ in range(requirement.addends):
            part = min(requirement.upload_bound, left)
            left -= part
            fold.add(made.encrypt(np.full(requirement.length, sign * part)))
        opened = made.open(fold.payload(), requirement.addends)
        assert opened.tolist() == [sign * reach] * requirement.length

    @settings(
        max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
    )
    @given(st.lists(st.lists(st.integers(-32_767, 32_767), min_size=3, max_size=3), min_size=1,
                    max_size=4))  # fmt: skip
    def test_any_vectors_add_up(self, name: str, heads: list[list[int]]) -> None:
        made = setup(name, CASES[1])
        values = np.zeros((len(heads), made.requirement.length), dtype=np.int64)
        values[:, :3] = heads
        fold = made.parameters.fold()
        for contribution in values:
            fold.add(made.encrypt(contribution))
        opened = made.open(fold.payload(), len(heads))
        assert opened.tolist() == values.sum(axis=0).tolist()

    def test_partial_sums_merge(self, name: str) -> None:
        made = setup(name, CASES[1])
        values = made.draw(np.random.default_rng(21), 5)
        left, right, whole = (made.parameters.fold() for _ in range(3))
        for number, contribution in enumerate(values):
            (left if number < 2 else right).add(made.encrypt(contribution))
        whole.add(left.payload(), addends=2)
        whole.add(right.payload(), addends=3)
        assert whole.count == 5
        assert made.open(whole.payload(), 5).tolist() == values.sum(axis=0).tolist()

    def test_order_of_adding_is_irrelevant(self, name: str) -> None:
        made = setup(name, CASES[2])
        payloads = [made.encrypt(v) for v in made.draw(np.random.default_rng(22), 4)]
        sums = []
        for order in (payloads, payloads[::-1]):
            fold = made.parameters.fold()
            for payload in order:
                fold.add(payload)
            sums.append(fold.payload())
        assert sums[0] == sums[1]

    def test_payloads_have_exactly_the_stated_size(self, name: str) -> None:
        for case in CASES:
            made = setup(name, case)
            payload = made.encrypt(np.zeros(made.requirement.length, dtype=np.int64))
            assert len(payload) == made.parameters.payload_bytes
            assert made.parameters.packing

    def test_the_same_values_encrypt_differently_each_time(self, name: str) -> None:
        made = setup(name, CASES[1])
        values = made.draw(np.random.default_rng(23), 1)[0]
        differ = made.encrypt(values) != made.encrypt(values)
        assert differ == made.scheme.protects

    def test_contributions_out_of_bounds_are_refused_without_naming_values(self, name: str) -> None:
        made = setup(name, CASES[1])
        bound, length = made.requirement.upload_bound, made.requirement.length
        for secret in (bound + 12_345, -bound - 12_345, np.iinfo(np.int64).min):
            values = np.zeros(length, dtype=np.int64)
            values[7] = secret
            with pytest.raises(CapacityError) as caught:
                made.encrypt(values)
            assert str(abs(int(secret))) not in str(caught.value)
        for shape in ((length + 1,), (1, length), ()):
            with pytest.raises(CapacityError, match="shape"):
                made.encrypt(np.zeros(shape, np.int64))
        with pytest.raises(CapacityError, match="int64"):
            made.encrypt(np.zeros(length))  # type: ignore[arg-type]

    @pytest.mark.parametrize("case", CASES)
    def test_parameters_survive_json(self, name: str, case: str) -> None:
        made = setup(name, case)
        facts = json.loads(json.dumps(made.parameters.to_dict()))
        again = made.scheme.load_parameters(facts)
        assert again == made.parameters
        assert again.fingerprint == made.parameters.fingerprint
        assert again.payload_bytes == made.parameters.payload_bytes
        assert again.security_bits == made.parameters.security_bits

    def test_parameters_reach_the_security_asked_for(self, name: str) -> None:
        made = setup(name, CASES[1])
        wanted = made.requirement.security_bits if made.scheme.protects else 0
        assert made.parameters.security_bits >= wanted
        assert str(made.parameters.payload_bytes) in made.parameters.explain()

    def test_hostile_facts_get_a_parameter_error(self, name: str) -> None:
        made = setup(name, CASES[1])
        facts = made.parameters.to_dict()
        for spoiled in _spoiled(facts):
            try:
                loaded = made.scheme.load_parameters(spoiled)
            except ParameterError:
                continue
            # Whatever is still accepted must be other valid parameters, never the same ones.
            assert loaded.fingerprint != made.parameters.fingerprint

    def test_other_lengths_are_other_parameters(self, name: str) -> None:
        prints = {setup(name, case).parameters.fingerprint for case in CASES}
        assert len(prints) == len(CASES)

    def test_impossible_requirements_are_refused(self, name: str) -> None:
        found = find_scheme(name)
        for bad in (
            Requirement(0, 1, 1, 1),
            Requirement(1, 0, 1, 1),
            Requirement(1, 1, 0, 1),
            Requirement(1, 1, 1 << 62, 1),
            Requirement(1, 1, 1, 0),
        ):
            with pytest.raises(ParameterError):
                found.choose_parameters(bad)
        with pytest.raises(ParameterError, match="no_such_option"):
            found.choose_parameters(REQUIREMENTS[CASES[0]], no_such_option=1)

    def test_parameters_of_another_scheme_are_refused(self, name: str) -> None:
        made = setup(name, CASES[0])
        other = setup("ckks" if name == "plaintext" else "plaintext", CASES[0])
        with pytest.raises(PrivaggError):
            made.generator.generate_key(other.parameters)
        with pytest.raises(ParameterError):
            made.scheme.load_parameters(other.parameters.to_dict())


class KeyContract(SchemeContract):
    """The same, and those of a scheme in which one party holds the key."""

    def test_many_at_once_are_added_as_one_after_the_other(self, name: str) -> None:
        made = setup(name, CASES[1])
        values = made.draw(np.random.default_rng(29), 6)
        good = [made.encrypt(contribution) for contribution in values]
        greatest = b"\xff" * 8 if made.scheme.protects else b"\xff" * 7 + b"\x7f"
        bad = good[1][:-8] + greatest
        one, many = made.parameters.fold(), made.parameters.fold()
        for payload in good:
            one.add(payload)
        assert many.add_many([]) == []
        errors = many.add_many([good[0], bad, memoryview(good[1]), good[2][:-1], *good[2:]])
        assert [error is None for error in errors] == [True, False, True, False] + [True] * 4
        assert all(isinstance(errors[place], CiphertextError) for place in (1, 3))
        assert many.count == 6
        assert many.payload() == one.payload()

    @pytest.mark.parametrize(
        "spoil", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: b"", lambda p: p * 2]
    )
    def test_a_payload_of_another_size_leaves_the_sum_alone(self, name: str, spoil: Any) -> None:
        made = setup(name, CASES[1])
        first, second = made.draw(np.random.default_rng(24), 2)
        fold = made.parameters.fold()
        fold.add(made.encrypt(first))
        bad = spoil(made.encrypt(second))
        with pytest.raises(CiphertextError, match="bytes"):
            fold.add(bad)
        with pytest.raises(CiphertextError):
            made.key.open_share(bad, 1)
        fold.add(made.encrypt(second))
        assert made.open(fold.payload(), 2).tolist() == (first + second).tolist()

    def test_an_out_of_range_payload_leaves_the_sum_alone(self, name: str) -> None:
        made = setup(name, CASES[1])
        first, second = made.draw(np.random.default_rng(25), 2)
        fold = made.parameters.fold()
        fold.add(made.encrypt(first))
        # The greatest word of each kind: 2^64 - 1 for residues, 2^63 - 1 for signed counters.
        greatest = b"\xff" * 8 if made.scheme.protects else b"\xff" * 7 + b"\x7f"
        whole = (greatest * (made.parameters.payload_bytes // 8 + 1))[
            : made.parameters.payload_bytes
        ]
        late = made.encrypt(second)[:-8] + greatest
        for bad in (whole, late):
            with pytest.raises(CiphertextError, match=r"value \d+|residue|ciphertext"):
                fold.add(bad)
            with pytest.raises(CiphertextError):
                made.key.open_share(bad, 1)
        fold.add(memoryview(made.encrypt(second)))
        assert fold.count == 2
        assert made.open(fold.payload(), 2).tolist() == (first + second).tolist()

    def test_a_fold_stops_at_its_capacity(self, name: str) -> None:
        made = setup(name, CASES[0])
        payload = made.encrypt(np.ones(1, dtype=np.int64))
        fold = made.parameters.fold()
        fold.add(payload)
        with pytest.raises(CapacityError):
            fold.add(payload, addends=2)
        with pytest.raises(CapacityError):
            fold.add(payload, addends=0)
        fold.add(payload)
        with pytest.raises(CapacityError):
            fold.add(payload)
        assert made.open(fold.payload(), 2).tolist() == [2]

    def test_openings_of_impossible_counts_are_refused(self, name: str) -> None:
        made = setup(name, CASES[0])
        payload = made.encrypt(np.ones(1, dtype=np.int64))
        share = made.key.open_share(payload, 1)
        for count in (0, -1, 3):
            with pytest.raises(CiphertextError):
                made.key.open_share(payload, count)
            with pytest.raises(CiphertextError):
                made.scheme.combine(made.parameters, [share], count)

    def test_shares_are_checked(self, name: str) -> None:
        made = setup(name, CASES[1])
        share = made.key.open_share(made.encrypt(np.zeros(301, dtype=np.int64)), 1)
        for bad in ([], [share, share], [share[:-1]], [b"\xff\xff\xff\x7f" * (len(share) // 4)]):
            with pytest.raises(CiphertextError):
                made.scheme.combine(made.parameters, bad, 1)

    def test_a_sum_beyond_what_count_contributions_reach_is_refused(self, name: str) -> None:
        made = setup(name, CASES[1])
        fold = made.parameters.fold()
        for _ in range(3):
            fold.add(made.encrypt(np.full(301, 32_767, dtype=np.int64)))
        with pytest.raises(CiphertextError):
            made.open(fold.payload(), 2)

    def test_keys_survive_their_bytes(self, name: str) -> None:
        made = setup(name, CASES[1])
        values = made.draw(np.random.default_rng(26), 1)[0]
        public = made.scheme.load_encryption_key(
            made.parameters, made.key.encryption_key.to_bytes()
        )
        secret = made.generator.load_decryption_key(made.parameters, made.key.to_bytes())
        assert public.key_id == made.key.encryption_key.key_id == secret.encryption_key.key_id
        share = secret.open_share(public.encrypt(values), 1)
        assert made.scheme.combine(made.parameters, [share], 1).tolist() == values.tolist()

    def test_the_public_key_does_not_contain_the_secret(self, name: str) -> None:
        made = setup(name, CASES[1])
        if made.scheme.protects:
            assert made.key.to_bytes() not in made.key.encryption_key.to_bytes()
            assert made.key.to_bytes() != made.key.encryption_key.to_bytes()

    def test_key_bytes_are_checked(self, name: str) -> None:
        made = setup(name, CASES[1])
        good = made.key.encryption_key.to_bytes()
        for bad in (b"", good[:-1], good + b"\0"):
            with pytest.raises((KeyMismatchError, CiphertextError)):
                made.scheme.load_encryption_key(made.parameters, bad)
            with pytest.raises((KeyMismatchError, CiphertextError)):
                made.generator.load_decryption_key(made.parameters, bad)

    def test_another_key_does_not_open(self, name: str) -> None:
        made = setup(name, CASES[1])
        other = made.generator.generate_key(made.parameters)
        assert other.encryption_key.key_id != made.key.encryption_key.key_id
        if not made.scheme.protects:
            return
        values = made.draw(np.random.default_rng(27), 1)[0]
        with pytest.raises(CiphertextError):
            other.open_share(made.encrypt(values), 1)


def _spoiled(facts: dict[str, Any]) -> list[Any]:
    """Versions of `facts` with one thing wrong."""
    wrong: list[Any] = [None, [], "facts", {**facts, "surprise": 1}]
    for key, value in facts.items():
        wrong.append({k: v for k, v in facts.items() if k != key})
        replacements: list[Any] = [None, "text", -1, 2.5, [], 10**30]
        if isinstance(value, dict):
            replacements.extend(_spoiled(value)[3:])
        wrong.extend({**facts, key: other} for other in replacements if other != value)
    return wrong
