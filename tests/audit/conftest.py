"""One small federation's evidence, and the accountants that every test shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from privagg.audit import Brought, Methods, ReportBundle, Verdict, Verification, verify_bundle
from privagg.audit.attestation import InTotoAttestation
from privagg.identity.keys import Identity
from privagg.protocol.messages import Statement
from tests.report.worlds import World, distributed


@dataclass
class Evidence:
    """A world, its honest bundle, and ways of changing it."""

    world: World
    bundle: ReportBundle
    methods: Methods

    @property
    def report(self) -> dict[str, Any]:
        """The report's JSON, fresh to be edited."""
        return dict(json.loads(self.bundle.files["report.json"]))

    def resigned(
        self, files: Mapping[str, bytes | None], identity: Identity | None = None
    ) -> ReportBundle:
        """The bundle with other files, its digests made anew and signed by the coordinator."""
        merged = {**self.bundle.files, **files}
        kept = {name: data for name, data in merged.items() if data is not None}
        signer = identity or self.world.identities["coordinator"]
        said = self.bundle.attestation.statement.predicate
        return ReportBundle(kept, InTotoAttestation.sign(signer, kept, said))

    def with_report(self, report: dict[str, Any]) -> ReportBundle:
        """The bundle with another report, signed by its coordinator."""
        return self.resigned({"report.json": (json.dumps(report, indent=2) + "\n").encode()})

    def verify(self, bundle: ReportBundle | None = None, **brought: Any) -> Verification:
        """Verify, with accountants that remember."""
        return verify_bundle(bundle or self.bundle, Brought(methods=self.methods, **brought))


def failures(made: Verification) -> str:
    """What fails, in one text."""
    return "; ".join(
        f"{claim.section}: {claim.subject}: {claim.claimed} / {claim.recomputed} / {claim.note}"
        for claim in made.of(Verdict.CONTRADICTED)
    )


def bundle_of(world: World) -> ReportBundle:
    """The bundle of a world's run."""
    ledgers = {"coordinator": world.coordinator, **world.sites}
    return ReportBundle.make(
        world.report().to_json().encode(),
        ledgers,
        world.identities["coordinator"],
        sorted(world.statements, key=_place),
    )


def _place(statement: Statement) -> tuple[int, int, int, str]:
    """The order in which a bundle holds statements."""
    said = json.loads(statement.header)
    return said["round"], said["attempt"], statement.kind, said["sender"]


@pytest.fixture(scope="session")
def methods() -> Methods:
    return Methods()


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory, methods: Methods) -> Evidence:
    folder: Path = tmp_path_factory.mktemp("evidence")
    world = World(folder, distributed(rounds=3), dropped={2: ("leuven",)}).play()
    return Evidence(world, bundle_of(world), methods)
