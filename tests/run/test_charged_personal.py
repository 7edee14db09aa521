"""A personal model that may be served: a run of one site, from the opened model, charged there."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from privagg import Federation
from privagg.audit.verify import Brought, verify_file
from privagg.party.local import local_ledgers
from privagg.privacy.ledger.entries import Charge
from tests.approvals import approved
from tests.run.small import run_small, write_small


def charges(federation: Federation, site: str) -> set[str]:
    """The runs that a site's ledger charged something for."""
    entries = local_ledgers(federation.setup.output)[site].entries()
    return {each.payload.run for each in entries if isinstance(each.payload, Charge)}


@pytest.mark.usefixtures("no_page")
def test_a_run_of_one_site_is_a_personal_model_that_its_own_ledger_charges(tmp_path: Path) -> None:
    path = write_small(tmp_path, rounds=1)
    everybody = approved(Federation.from_toml(path))
    common = run_small(everybody, run_id="common-1")
    assert common.model is not None
    sha256 = hashlib.sha256(common.model.read_bytes()).hexdigest()
    section = (
        f'\n[training.continues]\nrun = "common-1"\nmodel = "{common.model}"\nsha256 = "{sha256}"\n'
    )
    text = path.read_text().replace("[privacy]", '[privacy]\nmode = "record-local"', 1)
    text = text.replace("rounds = 1", "rounds = 1\nlocal_steps = 2\nlocal_learning_rate = 0.5")
    text = re.sub(r"optimizer = .*\n", "", text).replace("\n[secure]", f"{section}\n[secure]", 1)
    own = tmp_path / "own.toml"
    own.write_text(text[: text.index('\n[[sites]]\nname = "south"')])
    alone = approved(Federation.from_toml(own))
    assert alone.plan.names == ("north",)
    personal = run_small(alone, run_id="north-own")
    assert personal.model is not None
    assert personal.model.read_bytes() != common.model.read_bytes()
    assert charges(alone, "north") == {"common-1", "north-own"}
    assert charges(alone, "south") == {"common-1"}
    assert personal.bundle is not None
    assert verify_file(personal.bundle, Brought()).holds
    report = json.loads(personal.report_json.read_text()) if personal.report_json else {}
    assert [each["name"] for each in report["plan"]["sites"]] == ["north"]
