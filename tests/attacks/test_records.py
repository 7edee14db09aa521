"""An approval is for the records that its owner looked at, under whatever name and reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from privagg.config.schema import parse_config
from privagg.errors import ApprovalError, DataError
from privagg.federation import Federation
from privagg.party import approving
from privagg.party.folder import PartyFolder
from privagg.party.open import ledger_here, open_party
from privagg.privacy.ledger import Approval, sign_approval
from privagg.protocol.frames import read_message
from privagg.protocol.messages import Refusal
from privagg.training.declared import ImageSource
from privagg.training.images import load_images
from privagg.training.known import KnownRecords, record_bytes, rows_as_bytes
from tests.approvals import approved, approved_trial
from tests.attacks.test_approval import demo
from tests.flower.heart import make_deployment, write_federation
from tests.simulator import Simulation


def table_of(path: Path, site: str) -> Path:
    """Where a site's table lies."""
    federation = Federation.from_toml(path)
    (section,) = [section for section in federation.config.sites if section.name == site]
    return federation.setup.base / section.data


def charges(path: Path, site: str) -> int:
    """How often a site was charged, for whatever."""
    entries = ledger_here(Federation.from_toml(path).setup, site).entries()
    return sum(entry.kind == "charge" for entry in entries)


def others_like(path: Path, count: int) -> pd.DataFrame:
    """So many invented rows with a table's columns."""
    table = pd.read_csv(path)
    draw = np.random.default_rng(4)
    rows = table.sample(count, random_state=1, replace=True).reset_index(drop=True)
    rows[table.columns[0]] = draw.uniform(5, 30, count)
    return rows


def test_a_table_replaced_after_the_approval_is_not_trained_on(tmp_path: Path) -> None:
    path = demo(tmp_path)
    approved(Federation.from_toml(path))
    table = table_of(path, "riverside")
    others_like(table, 220).to_csv(table, index=False)
    with pytest.raises(DataError, match="100% of the records that lie at 'riverside' were not"):
        Federation.from_toml(path).run()
    assert charges(path, "riverside") == charges(path, "lakeview") == 0
    approved(Federation.from_toml(path)).run()
    assert charges(path, "riverside") == 2


def test_a_hundredth_of_new_records_asks_the_owner_again_and_fewer_do_not(tmp_path: Path) -> None:
    path = demo(tmp_path, ("records = 220", "records = 230"))
    table = table_of(path, "riverside")
    whole = pd.read_csv(table)
    approved(Federation.from_toml(path))
    two, three = (pd.concat([whole, others_like(table, count)]) for count in (2, 3))
    two.to_csv(table, index=False)  # 2 of 222
    Federation.from_toml(path).check_ready()
    three.to_csv(table, index=False)  # 3 of 223
    with pytest.raises(DataError, match="1% of the records"):
        Federation.from_toml(path).run()


def test_records_of_another_data_set_put_in_its_place_are_told_by_its_name(tmp_path: Path) -> None:
    """riverside's owner holds two data sets; the file of one is laid where the other was."""
    path = demo(tmp_path)
    first = table_of(path, "riverside").read_bytes()
    approved(Federation.from_toml(path))
    second = demo(tmp_path, ("records = 220", 'records = 220\ndataset = "study-2"'))
    table = table_of(second, "riverside")
    others_like(table, 220).to_csv(table, index=False)
    Federation.from_toml(second).approve(who="Dr. Ito", why="other people")
    table.write_bytes(first)
    with pytest.raises(DataError, match="count already under 'riverside'"):
        Federation.from_toml(second).run()
    assert charges(second, "riverside") == 0


def test_of_two_names_approved_at_the_same_time_one_is_told_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes look before either of them has remembered anything."""
    first = Federation.from_toml(demo(tmp_path))
    renamed = ("records = 220", 'records = 220\ndataset = "study-2"')
    second = Federation.from_toml(demo(tmp_path, renamed))
    signed, others = sign_approval, [first]

    def in_between(*key: Any, **says: Any) -> Approval:
        if others:
            others.pop().approve(who="Dr. Mori", why="study 1")
        return signed(*key, **says)

    monkeypatch.setattr(approving, "sign_approval", in_between)
    with pytest.raises(ApprovalError, match="count already under 'riverside'"):
        second.approve(who="Dr. Ito", why="study 2")
    ledger = ledger_here(first.setup, "riverside")
    assert [key.dataset for key in ledger.keys()] == ["riverside"]  # noqa: SIM118


def test_the_same_object_under_another_name_is_recognised(tmp_path: Path) -> None:
    """In Python, with records read once: `with_config` hands them on under another name."""
    federation = approved(Federation.from_toml(demo(tmp_path)))
    values = federation.config.model_dump(mode="json", exclude_unset=True)
    values["sites"][0]["dataset"] = "study-2"
    renamed = federation.with_config(parse_config(values))
    with pytest.raises(ApprovalError, match="count already under"):
        renamed.approve(who="Dr. Ito", why="study 2")


def test_images_are_the_same_under_another_range_shape_and_label(tmp_path: Path) -> None:
    """The range is a line in the shared file; scaled pixels would be others with every range."""
    pixels = np.random.default_rng(1).integers(0, 255, (50, 8, 8)).astype(np.uint8)
    for name, labels in (("a", np.zeros(50)), ("b", np.ones(50))):
        np.save(tmp_path / f"{name}.npy", pixels if name == "a" else pixels.reshape(50, 64))
        np.save(tmp_path / f"{name}-labels.npy", labels.astype(np.int64))
    known = KnownRecords(tmp_path / "north.records")

    def tags(name: str, highest: float, shape: tuple[int, int, int]) -> frozenset[bytes]:
        source = ImageSource(shape, (0.0, highest), 2)
        images, labels = tmp_path / f"{name}.npy", tmp_path / f"{name}-labels.npy"
        held = load_images(images, labels, value_range=(0.0, highest), shape=shape, classes=2)
        return known.tags(record_bytes(source, tmp_path, images.name, held))

    known.remember("scans", tags("a", 255.0, (1, 8, 8)))
    (found,) = known.recognise("study-2", tags("b", 256.0, (2, 4, 8))).elsewhere
    assert (found.dataset, found.share) == ("scans", 1.0)


def test_lines_without_any_value_make_no_two_data_sets_alike(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    known, blank = KnownRecords(tmp_path / "north.records"), pd.DataFrame({"a": [None], "b": [""]})
    one, two = (pd.DataFrame(draw.normal(size=(20, 2)), columns=["a", "b"]) for _ in range(2))
    known.remember("one", known.tags(rows_as_bytes(pd.concat([one, blank]))))
    assert not known.recognise("two", known.tags(rows_as_bytes(pd.concat([two, blank])))).elsewhere


def test_a_rows_bytes_are_its_own(tmp_path: Path) -> None:
    """Words in another row's cell change nothing of this one's, whatever the column then is."""
    numbers = pd.DataFrame({"a": ["1", "2.50", "-0"], "b": ["x", "", "y"]}, dtype=object)
    mixed = pd.concat([numbers, pd.DataFrame({"a": ["none yet"], "b": ["7"]})], ignore_index=True)
    assert rows_as_bytes(mixed)[:3] == rows_as_bytes(numbers)
    spelled = pd.DataFrame({"b": ["x", None, "y"], "a": [1.0, 2.5, 0.0]})
    assert rows_as_bytes(spelled)[0] == rows_as_bytes(numbers)[0]
    assert rows_as_bytes(spelled)[2] == rows_as_bytes(numbers)[2]


def test_a_record_whose_booleans_and_letters_are_spelt_anew_is_the_same_record() -> None:
    """They are encoded alike, so they would be the same record on a fresh budget."""
    spelt = [[True, "Yes"], ["TRUE", "yes "], [1, "YES"], ["false", "yes"]]
    first, *others, no = (rows_as_bytes(pd.DataFrame([row], columns=["a", "b"])) for row in spelt)
    assert all(other == first for other in others)
    assert no != first


def test_a_deployed_site_does_not_serve_on_other_records(tmp_path: Path) -> None:
    config = write_federation(tmp_path, rounds=3, scheme="plaintext")
    trial = make_deployment(config, tmp_path / "parties")
    folder: PartyFolder = trial.parties["va"].party
    open_party(folder)
    table = config.parent / "data" / "va.csv"
    own = folder.party().data
    table = table if own is None else folder.root / own
    others_like(table, 24).to_csv(table, index=False)
    with pytest.raises(DataError, match="the approval is not for them"):
        open_party(folder)
    approved_trial(trial)
    open_party(folder)


def test_the_coordinator_learns_that_a_site_stays_out_and_not_why(tmp_path: Path) -> None:
    def strangers(approval: Approval) -> None:
        raise DataError("73% of the records are strangers")

    simulation = Simulation(tmp_path, dropouts=1)
    simulation.wire.handlers["north"] = simulation.site("north", recognise=strangers).handle
    outcome = simulation.round(1)
    assert "north" not in outcome.survivors
    assert simulation.charges("north") == simulation.learners["north"].calls == 0
    said = read_message(simulation.wire.seen["north"][-1], simulation.roster).header
    assert isinstance(said, Refusal)
    assert (said.reason, said.message) == ("unavailable", "DataError")
