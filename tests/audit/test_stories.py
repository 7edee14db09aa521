"""Ledgers that are each in order and together tell a false story: contributions never charged,
two endings of one run, texts in the bundle that nobody vouches for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from privagg.audit import Methods, Verdict
from privagg.errors import LedgerError
from tests.audit.conftest import Evidence, bundle_of, failures
from tests.report.worlds import World, distributed

CHECKS = ("require_charged", "require_one_ending", "require_said_once")


class Uncharged(World):
    """Leuven contributes to round 2 and charges nothing for it."""

    def _charge(self, name: str, run: str, number: int) -> None:
        if (name, number) != ("leuven", 2):
            super()._charge(name, run, number)

    def upload(self, name: str, number: int) -> None:
        if (name, number) != ("leuven", 2):
            super().upload(name, number)

    def _realise(self, name: str, place: dict[str, Any], survivors: list[str]) -> None:
        if (name, place["round"]) != ("leuven", 2):
            super()._realise(name, place, survivors)


class TwoEndings(World):
    """Leuven records round 2 as opened, then as come to nothing."""

    def _realise(self, name: str, place: dict[str, Any], survivors: list[str]) -> None:
        super()._realise(name, place, survivors)
        if (name, place["round"]) == ("leuven", 2):
            self.sites[name].record("aborted", {**place, "reason": "so it never was"})


class Ended(World):
    """The coordinator's ledger ends the run once more, otherwise."""

    def play(self) -> World:
        super().play()
        again = {"run": self.run, "outcome": "stopped", "reason": "second thoughts"}
        self.coordinator.record("run-finished", again)
        return self


class Released(World):
    """The coordinator's ledger releases another model afterwards."""

    def play(self) -> World:
        super().play()
        facts = {
            "run": self.run, "model_file": "other.safetensors", "model_sha256": "cd" * 32,
            "metrics": None,
        }  # fmt: skip
        self.coordinator.record("released", {"what": "model", "who": "c", "facts": facts})
        return self


@pytest.mark.parametrize(
    ("story", "words"),
    [
        (Uncharged, "round 2, attempt 1: 'leuven' contributed to the opened sum, but"),
        (TwoEndings, "the ledger of 'leuven' records it as opened, and after that as aborted"),
        (Ended, "says 'run-finished' of run"),
        (Released, "says 'released' of run"),
    ],
)
def test_ledgers_that_contradict_each_other_are_found(
    tmp_path: Path, methods: Methods, story: Callable[..., World], words: str
) -> None:
    world = story(tmp_path, distributed(rounds=2)).play()
    with pytest.raises(LedgerError) as refused:
        world.report()
    assert words in str(refused.value)
    with patch.multiple("privagg.report.build", **dict.fromkeys(CHECKS, lambda *_: None)):
        forged = bundle_of(world)  # by somebody whose software looks away
    made = Evidence(world, forged, methods).verify()
    assert not made.holds
    assert words in failures(made)


@pytest.mark.parametrize("name", ["README.txt", "schema.json"])
@pytest.mark.parametrize("data", [b"Certified anonymous by the supervisor.", None])
def test_texts_that_nobody_published_are_found(
    evidence: Evidence, name: str, data: bytes | None
) -> None:
    made = evidence.verify(evidence.resigned({name: data}))
    assert f"{name}: as published" in failures(made)


def test_an_accountant_that_stands_there_twice_is_found(evidence: Evidence) -> None:
    report = evidence.report
    figures = report["sites"][0]["accountants"]
    figures.append(figures[1])
    assert "stands there twice" in failures(evidence.verify(evidence.with_report(report)))


def test_an_honest_bundle_tells_one_story(evidence: Evidence) -> None:
    assert not evidence.verify().of(Verdict.CONTRADICTED)
