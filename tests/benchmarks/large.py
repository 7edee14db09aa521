"""A model of 25.6 million parameters through whole rounds of three sites: seconds and memory.

    python -m tests.benchmarks.large --json out/large.json [--records N] [--only head|more|all]

ResNet-50 with GroupNorm (`resnet.py`) on random images of 3x64x64 and 1000 classes; masked sums,
every site in this process, one thread, each row in a process of its own:

- `head`: the last block and the head are trained, two rounds; all before them is frozen.
- `more`: the same with sixteen times the records at a sixteenth of the rate, so as many are used.
- `all`: every parameter, one round.

A stage's seconds are its processor time at all three sites and in all rounds together; its memory
is the process' peak while it lasted. `before` is all that comes before the first charge: the model,
the tests that its records stay apart, keys. What is left of a round is `other`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privagg import Federation
from privagg.programs.gradient import GradientTraining
from privagg.protocol.job import RoundOutcome
from privagg.protocol.site import Site
from privagg.training.dpsgd import DpSgd
from privagg.training.draws import Draws
from tests.benchmarks.tables import show, write_json
from tests.benchmarks.timing import peak_mib

SITES, SIDE, CLASSES = ("north", "south", "west"), 64, 1000
BLOCK_AND_HEAD = ["18.*", "21.*"]
ROWS = {"head": (1, 2, BLOCK_AND_HEAD), "more": (16, 2, BLOCK_AND_HEAD), "all": (1, 1, [])}
"""Row -> how many times the records, rounds, and which parameters are trained."""


@dataclass
class Stages:
    """Processor seconds and peak memory of calls by the stage that they belong to.

    Attributes:
        seconds: stage -> processor time of all its calls together.
        mib: stage -> the process' peak resident memory during one of them.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    mib: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def watch(self, owner: type, name: str, stage: str) -> None:
        """Count the calls of a method from now on."""
        method = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            with self.of(stage):
                return method(*given, **named)

        setattr(owner, name, watched)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count what is done meanwhile."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] += time.process_time() - started
            self.mib[stage] = max(self.mib[stage], peak_mib())


def federation(
    folder: Path, records: int, times: int, rounds: int, trainable: list[str]
) -> Federation:
    """Three sites with random images; of `times` as many records each is used as seldom."""
    shutil.copyfile(Path(__file__).with_name("resnet.py"), folder / "large_resnet.py")
    sys.path.insert(0, str(folder))  # a file of its own is approved, not all of the tests
    for number, site in enumerate(SITES):
        draw = np.random.default_rng(number)
        images = draw.integers(0, 256, (records * times, 3, SIDE, SIDE), dtype=np.uint8)
        np.save(folder / f"{site}-images.npy", images)
        np.save(folder / f"{site}-labels.npy", draw.integers(0, CLASSES, records * times))
    model: dict[str, Any] = {"kind": "large_resnet:resnet50"}
    if trainable:
        model["trainable"] = trainable
    return Federation.from_dict(
        {
            "federation": {"name": "large", "output": "out"},
            "privacy": {
                "mode": "record-distributed", "epsilon": 8, "delta": "1e-5",
                "clip_norm_l2": 1, "sensitivity_grid": 2**20, "budget_epsilon": 8,
            },
            "training": {
                "model": model, "rounds": rounds, "physical_batch": 8,
                "sampling_rate": str(0.25 / times),
                "optimizer": {"kind": "momentum", "learning_rate": 0.1},
            },
            "secure": {"scheme": "masked"},
            "data": {
                "kind": "images", "shape": [3, SIDE, SIDE], "value_range": [0, 255],
                "classes": CLASSES,
            },
            "sites": [
                {
                    "name": site, "data": f"{site}-images.npy", "labels": f"{site}-labels.npy",
                    "records": records * times,
                }
                for site in SITES
            ],
        },
        base=folder,
    )  # fmt: skip


def measured(name: str, records: int) -> dict[str, Any]:
    """One row, in this process."""
    torch.set_num_threads(1)
    times, rounds, trainable = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        made = federation(Path(folder), records, times, rounds, trainable)
        stages = Stages()
        with stages.of("before"):
            made.approve(who="a benchmark", why="its figures", accept_findings=SITES)
            made.setup.rehearse()
        stages.watch(DpSgd, "slotted_sum", "training")
        stages.watch(Draws, "noise", "noise")
        stages.watch(Site, "_encrypt", "encryption")
        stages.watch(GradientTraining, "fold", "server step")
        stages.watch(GradientTraining, "save", "model file")
        timed = RoundOutcome.timed
        named = {"add": "aggregation", "open": "opening"}

        @contextmanager
        def watched(self: RoundOutcome, stage: str) -> Iterator[None]:
            if stage not in named:
                yield
                return
            with stages.of(named[stage]), timed(self, stage):
                yield

        RoundOutcome.timed = watched  # type: ignore[method-assign]
        started = time.process_time()
        result = made.run()
        whole = time.process_time() - started
        assert result.outcome == "finished", result.reason
        assert result.model is not None
        size = result.model.stat().st_size
    peak = max(stages.mib.values())
    inside = sum(spent for stage, spent in stages.seconds.items() if stage != "before")
    return {
        "row": name, "parameters": sum(p.numel() for p in made.setup.model.parameters()),
        "trained": made.plan.dimension, "records": records * times, "rounds": rounds,
        **{f"{stage}_s": round(spent, 2) for stage, spent in stages.seconds.items()},
        "other_s": round(whole - inside, 2),
        **{f"{stage}_mib": round(most) for stage, most in stages.mib.items()},
        "peak_mib": max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, round(peak)),
        "model_file_mb": round(size / 1e6, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--records", type=int, default=32, help="of each site, in `head` and `all`")
    parser.add_argument("--only", choices=ROWS, help="one row, in this process")
    asked = parser.parse_args()
    if asked.only:
        rows = [measured(asked.only, asked.records)]
    else:
        rows = []
        for name in ROWS:
            with tempfile.NamedTemporaryFile(suffix=".json") as file:
                words = ["--only", name, "--records", str(asked.records), "--json", file.name]
                subprocess.run([sys.executable, "-m", "tests.benchmarks.large", *words], check=True)
                rows += json.loads(Path(file.name).read_text())
    write_json(asked.json, rows)
    for row in rows:
        stages = [key[:-2] for key in row if key.endswith("_s")]
        show(
            f"{row['row']}: {row['trained']:,} of {row['parameters']:,} parameters trained, "
            f"{row['records']} records a site, rounds: {row['rounds']}",
            {"stage": "stage", "processor s": "s", "peak MiB": "mib"},
            [{"stage": n, "s": row[f"{n}_s"], "mib": row.get(f"{n}_mib")} for n in stages],
        )


if __name__ == "__main__":
    main()
