"""Directors of the sections that start a deployment's processes on this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.documents.directors import README, blocks_of, directs, write_federation
from tests.documents.story import Story

READY = "ready: the SuperLink and"


def few_rounds(path: Path, rounds: int = 2) -> None:
    """Let a configuration be of few rounds: over Flower each takes seconds."""
    text, found = re.subn(r"(?m)^rounds = \d+", f"rounds = {rounds}", path.read_text())
    assert found == 1
    path.write_text(text)


@directs(README, "On several machines", mark="deployment")
def several_machines(story: Story) -> None:
    (whole, *_) = blocks_of(README, "Your own federation in five minutes", "toml")
    write_federation(story.folder, whole)
    few_rounds(story.folder / "my.toml")
    story.until("privagg approve")
    story.start("privagg deploy up", READY)
    assert "2/2" in story.until("privagg run").out
    story.rest()
    story.stop()
    require_files(story.folder / "trial" / "coordinator" / "out")


def require_files(output: Path) -> Path:
    """Model, report and bundle of the only run, in its folder below `out`."""
    (folder,) = (path for path in output.iterdir() if path.is_dir())
    for name in ("model.safetensors", "report.json", "report.html", "bundle.privagg.zip"):
        assert (folder / name).stat().st_size > 0, name
    assert json.loads((folder / "report.json").read_text())["outcome"] == "finished"
    return folder
