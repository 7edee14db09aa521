"""What a site samples is kept for its owner alone, and the owner recomputes the integers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privagg.errors import ConfigError
from privagg.federation import Federation
from privagg.identity.owner import make_owner_key, read_owner_key
from privagg.identity.sealing import seal, sealing_key, unseal
from privagg.party.folder import PartyFolder
from privagg.party.open import ledger_here, open_federation, open_site
from privagg.party.samples import Kept, Samples, keep_samples_for, recomputed
from privagg.privacy.ledger.entries import Charge
from privagg.privacy.randomness import DeterministicRandomness
from privagg.run.results import RoundReport
from tests.approvals import approved
from tests.attacks.test_approval import demo
from tests.commands import Answer, call
from tests.flower.heart import make_deployment, write_federation

ENGINE = ("[training]", '[training]\nengine = "exact-dense"')


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A local run whose owner looks while it is under way: what was typed, and what it said."""
    where = tmp_path_factory.mktemp("samples")
    path = demo(where, ENGINE)
    federation = approved(Federation.from_toml(path))
    folder = PartyFolder(where / "parties" / "riverside")
    said: dict[str, Any] = {"folder": folder, "path": path, "early": typed(path, "riverside")}
    said["on"] = typed(path, "riverside", "--on")
    said["switched"] = folder.party().samples_for
    data = federation.setup.base / federation.setup.section("riverside").data
    original = data.read_bytes()

    def look(report: RoundReport) -> None:
        if report.outcome.round == 1:
            said["round 1"] = typed(path, "riverside")
            return
        said["earlier"] = typed(path, "riverside", "--round", "1")
        said["not kept"] = typed(path, "riverside", "--round", "7")
        other = where / "other.pem"
        make_owner_key(other)
        said["other key"] = typed(path, "riverside", "--owner-key", other)
        lines = original.decode().splitlines(keepends=True)
        data.write_text("".join([lines[0], *reversed(lines[1:])]))
        said["changed"] = typed(path, "riverside")
        data.write_bytes(original)
        files = sorted(folder.samples.rglob("*.sealed"))
        said["sizes"] = {file.stat().st_size for file in files}
        said["modes"] = {file.stat().st_mode & 0o777 for file in (*files, folder.samples)}
        said["bytes"] = [file.read_bytes() for file in files]
        said["kept"] = Samples(folder).rounds()
        said["others"] = [other.root.name for other in parties(where) if other.samples.exists()]
        shutil.copytree(folder.samples, where / "copy")

    said["result"] = federation.run(on_round=look)
    said["copy"] = where / "copy"
    return said


def parties(where: Path) -> list[PartyFolder]:
    return [PartyFolder(path) for path in (where / "parties").iterdir() if path.is_dir()]


def typed(path: Path, site: str, *words: object) -> Answer:
    return call("recompute", path, "--site", site, *words)


def test_the_owner_recomputes_each_round_while_the_run_is_under_way(told: dict[str, Any]) -> None:
    digests = set()
    for when in ("round 1", "earlier"):  # said during rounds 1 and 2
        code, out, err = told[when]
        assert code == 0, out + err
        assert "as private as the records" in out
        assert "the same" in out
        digests.add(out.split("SHA-256 ")[1].split()[0])
    assert len(digests) == 1
    assert told["result"].outcome == "finished"


def test_other_records_give_another_digest_and_say_so(told: dict[str, Any]) -> None:
    code, out, _ = told["changed"]
    assert code == 1
    assert out.count("SHA-256") == 2
    assert "other records lie here" in out


def test_no_other_key_opens_what_was_kept(told: dict[str, Any]) -> None:
    code, _, err = told["other key"]
    assert code == 2
    assert "does not open with this owner's key" in err


def test_nothing_is_kept_unless_the_owner_says_so(told: dict[str, Any]) -> None:
    assert told["early"].code == 2
    assert "keeps no sample" in told["early"].err
    assert told["on"].code == 0
    assert told["switched"] == sealing_key(read_owner_key(told["folder"].owner_key))
    assert told["others"] == ["riverside"]
    assert told["not kept"].code == 2
    assert "no sample of this run, round or attempt" in told["not kept"].err


def test_at_the_runs_end_all_is_deleted(told: dict[str, Any]) -> None:
    assert [number for _, number, _ in told["kept"]] == [1, 2]
    assert Samples(told["folder"]).rounds() == []
    assert not list(told["folder"].samples.rglob("*"))
    assert typed(told["path"], "riverside").code == 2


def test_what_is_kept_has_a_public_size_and_cannot_be_read(told: dict[str, Any]) -> None:
    assert len(told["sizes"]) == 1
    assert told["modes"] == {0o600, 0o700}
    owner = read_owner_key(told["folder"].owner_key)
    shutil.copytree(told["copy"], told["folder"].samples, dirs_exist_ok=True)
    try:
        samples = Samples(told["folder"])
        kept = [samples.read(place, owner) for place in told["kept"]]
        moved = samples._path(told["kept"][0])
        moved.write_bytes(told["bytes"][1])  # of another round
        with pytest.raises(ConfigError, match="belongs elsewhere"):
            samples.read(told["kept"][0], owner)
    finally:
        shutil.rmtree(told["folder"].samples)
    for one, data in zip(kept, told["bytes"], strict=True):
        assert len(data) == len(one.to_bytes()) + 48
        assert one.digest.encode() not in data
        assert one.records_at.tobytes()[:64] not in data
        sampled = one.records_at[one.records_at >= 0]
        assert 0 < len(sampled) == len(set(sampled.tolist())) < 220


def test_switched_off_nothing_is_kept_any_more(told: dict[str, Any]) -> None:
    folder, path = told["folder"], told["path"]
    shutil.copytree(told["copy"], folder.samples, dirs_exist_ok=True)
    assert typed(path, "riverside", "--off").code == 0
    assert folder.party().samples_for == ""
    assert not list(folder.samples.rglob("*"))
    assert typed(path, "nowhere", "--on").code == 2
    assert call("recompute", path).code == 2
    assert call("recompute", path, "--party", folder.root).code == 2


@pytest.mark.parametrize(
    ("engine", "mode"), [("exact-dense", "record-distributed"), ("exact", "record-local")]
)
def test_a_site_on_its_own_machine_keeps_the_first_step(
    tmp_path: Path, engine: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By each mode and engine, from the folder that a deployment's site is opened from."""
    config = write_federation(tmp_path)
    text = config.read_text().replace("[training]", f'[training]\nengine = "{engine}"', 1)
    if mode == "record-local":
        text = text.replace("dropouts = 1", 'mode = "record-local"', 1)
        text = text.replace("[training]", "[training]\nlocal_steps = 3", 1)
    config.write_text(text)
    folder = make_deployment(config, tmp_path / "trial").parties["va"].party
    setup, owner = open_federation(folder), read_owner_key(folder.owner_key)
    keep_samples_for(folder, owner)
    site = open_site(setup, folder, folder.pins().pinned_roster)
    parameters = np.random.default_rng(0).standard_normal(setup.plan.dimension)
    place = ("a-run", 1, 1)
    sent = site._learner.contribution(parameters, DeterministicRandomness(3), place)
    assert sent.any()
    samples = Samples(folder)
    assert samples.rounds() == [place]
    kept = samples.read(place, owner)
    np.testing.assert_array_equal(kept.parameters, parameters)
    assert recomputed(kept, setup, "va")[0] == kept.digest
    assert kept.computed["engine"] == engine
    assert set(Kept.__dataclass_fields__) == {
        "round_id", "plan", "digest", "computed", "parameters", "records_at",
    }  # fmt: skip
    # Whatever noise was drawn, the same is kept: it follows from sample, model and records alone.
    before = samples.read(place, owner)
    site._learner._plan = setup.plan.model_copy(update={"noise_multiplier": 99})
    site._learner.contribution(parameters, DeterministicRandomness(3), place)
    assert samples.read(place, owner).to_bytes() == before.to_bytes()
    site._learner.contribution(parameters, DeterministicRandomness(4), ("next-run", 1, 1))
    assert samples.runs() == ["next-run"]  # nobody said that the first one ended
    # What cannot be written stops no round, which is paid for.
    shutil.rmtree(folder.samples)
    folder.samples.write_text("a file where the folder should be")
    site._learner.contribution(parameters, DeterministicRandomness(4), ("next-run", 2, 1))
    assert "the round's sample was not kept" in caplog.text


def test_a_key_that_the_owner_did_not_sign_keeps_nothing_and_costs_nothing(tmp_path: Path) -> None:
    """Whoever writes party.toml would otherwise be told who was sampled."""
    path = demo(tmp_path, ENGINE)
    federation = approved(Federation.from_toml(path))
    folder = PartyFolder(tmp_path / "parties" / "riverside")
    owner, thief = read_owner_key(folder.owner_key), Ed25519PrivateKey.generate()
    keep_samples_for(folder, owner)
    signed = folder.party()
    keep_samples_for(folder, thief)
    assert folder.party().samples_for != signed.samples_for
    for key, signature in (
        (sealing_key(thief), folder.party().samples_signed),
        (sealing_key(thief), signed.samples_signed),
        (sealing_key(thief), ""),
    ):
        said = signed.model_copy(update={"samples_for": key, "samples_signed": signature})
        PartyFolder.create(folder.root, said)
        with pytest.raises(ConfigError, match=r"'riverside'.*did not sign.*Nothing was charged"):
            federation.run()
    assert not folder.samples.exists()
    entries = ledger_here(federation.setup, "riverside").entries()
    assert not [entry for entry in entries if isinstance(entry.payload, Charge)]


def test_sealed_data_open_for_their_owner_and_context_alone() -> None:
    owner, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    key = sealing_key(owner)
    assert key == sealing_key(owner) != sealing_key(other)
    sealed = seal(b"data", key, b"here")
    assert seal(b"data", key, b"here") != sealed
    assert unseal(sealed, owner, b"here") == b"data"
    for wrong in (
        (sealed, other, b"here"), (sealed, owner, b"there"), (sealed[:-1], owner, b"here"),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), owner, b"here"), (b"", owner, b"here"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="does not open"):
            unseal(*wrong)
    with pytest.raises(ConfigError, match="no X25519 public key"):
        seal(b"data", "00", b"here")
