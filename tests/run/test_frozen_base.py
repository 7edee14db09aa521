"""A head trained on a frozen base: what is sent, what is pinned, and another base at one site."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from privagg import Federation
from privagg.errors import ApprovalError, ModelError
from privagg.party.folder import PartyFolder
from privagg.party.local import local_ledgers
from privagg.party.open import open_federation, open_party
from privagg.privacy.ledger import Ledger
from privagg.training.factories import look_at
from tests.approvals import approved
from tests.commands import call
from tests.run.small import run_small, write_small

MODULE = "model_on_a_base"
FACTORY = """
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

MADE = []


class Model(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.base, self.again = nn.Linear(2, 6), nn.Linear(2, 6)
        self.again.weight = self.base.weight
        self.register_buffer("shift", torch.full((2,), 0.5))
        self.head = nn.Linear(6, outputs)

    def forward(self, x):
        return self.head(torch.tanh(self.base(x - self.shift) - self.again(self.shift - x)))


def model(classes):
    made = Model(1)
    base = load_file(Path(__file__).with_name("base.safetensors"))
    made.load_state_dict(base, strict=False)
    MADE.append(made)
    if len(MADE) == LATER:
        made.shift[0] += 2.0**-24
    return made
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two sites whose model's base lies in a file beside its factory."""
    path = write_small(tmp_path)
    asked = f'model = {{ kind = "{MODULE}:model", trainable = ["head.*"] }}'
    path.write_text(path.read_text().replace('model = "logistic"', asked))
    (tmp_path / f"{MODULE}.py").write_text(FACTORY.replace("LATER", "0"))
    write_base(path, 0.0)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop(MODULE, None)


def write_base(config: Path, bias: float) -> None:
    base = {"base.weight": torch.linspace(-1, 1, 12).reshape(6, 2)}
    base["base.bias"] = torch.full((6,), bias)
    base["again.weight"] = base["base.weight"].clone()
    base["again.bias"] = torch.zeros(6)
    save_file(base, config.with_name("base.safetensors"))


def charges(ledgers: dict[str, Ledger]) -> int:
    kinds = [entry.kind for ledger in ledgers.values() for entry in ledger.entries()]
    return kinds.count("charge")


def test_the_head_alone_is_sent_and_the_whole_model_is_saved(config: Path) -> None:
    federation = approved(Federation.from_toml(config))
    assert federation.plan.dimension == 7
    frozen = federation.plan.recipe["frozen_sha256"]
    result = run_small(federation)
    assert result.outcome == "finished"
    assert result.parameters.shape == (7,)
    assert result.model is not None
    saved = load_file(result.model)
    own = sys.modules[MODULE].Model(1)
    own.load_state_dict(saved, strict=True)
    assert set(saved) == {
        "base.weight", "base.bias", "again.weight", "again.bias", "shift", "head.weight",
        "head.bias",
    }  # fmt: skip
    loaded = federation.trained_model()
    x = torch.rand(5, 2)
    assert torch.equal(loaded(x), own(x))
    assert isinstance(frozen, str)
    assert frozen in result.report_json.read_text()  # type: ignore[union-attr]


def test_a_base_that_changed_after_the_approval_spends_nothing(config: Path) -> None:
    federation = approved(Federation.from_toml(config))
    digest = federation.plan.digest
    write_base(config, 0.25)
    with pytest.raises(ModelError, match=r"frozen values have .*agreed on is .*Nothing was"):
        run_small(federation)
    again = Federation.from_toml(config)
    with pytest.raises(ApprovalError, match="have not approved"):
        run_small(again)
    again = approved(again)  # an owner who decides anew
    assert again.plan.digest != digest
    assert charges(local_ledgers(config.parent / "out")) == 0


def test_a_factory_that_gives_one_site_another_base_is_refused_before_a_charge(
    config: Path,
) -> None:
    """By a bit of a buffer, in whichever of the models that a run makes."""
    run_small(approved(Federation.from_toml(config)), run_id="as-agreed")
    made = len(sys.modules.pop(MODULE).MADE)
    before = charges(local_ledgers(config.parent / "out"))
    assert before > 0
    for later in (2, made // 2, made):
        (config.parent / f"{MODULE}.py").write_text(FACTORY.replace("LATER", str(later)))
        with pytest.raises(ModelError, match="agreed on is"):
            run_small(approved(Federation.from_toml(config)), run_id=f"other-at-{later}")
        sys.modules.pop(MODULE)
    assert charges(local_ledgers(config.parent / "out")) == before


def test_a_site_with_another_base_answers_nobody(config: Path, tmp_path: Path) -> None:
    code = f"{MODULE}={look_at(f'{MODULE}:model').sha256}"
    words = ("deploy", "trial", config, tmp_path / "trial", "--trust-code", code)
    assert call(*words).code == 0
    folder = PartyFolder(tmp_path / "trial" / "north")
    assert open_federation(folder).plan.recipe["frozen_sha256"]
    open_party(folder)
    write_base(config, 0.25)
    with pytest.raises(ModelError, match="frozen values have SHA-256"):
        open_party(folder)
    assert charges({"north": Ledger.open(folder.ledger)}) == 0
