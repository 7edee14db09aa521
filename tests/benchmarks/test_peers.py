"""The comparison with other frameworks: our own side runs, peers are spoken to line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from privagg.secure.masked.rule import Rule
from tests.benchmarks import kernels, masking, peers

DUMMY = """
import sys
sys.path.insert(0, sys.argv[1])
import peer_protocol

class Dummy:
    def prepare(self, parameters, sites):
        self.work = parameters * sites
        print("a library's chatter must not reach the runner")
        return {"bytes": 4 * parameters}

    def run(self):
        sum(range(self.work))

peer_protocol.serve(Dummy())
"""


@pytest.mark.parametrize("name", ["bfv", "ckks"])
def test_our_aggregation_is_a_whole_round(name: str) -> None:
    job = peers.privagg_job(name, 2000, 4)
    seconds, processor_seconds = job.run()
    assert seconds > 0
    assert processor_seconds >= 0
    assert job.additions == 8000
    assert job.upload_bytes > 2


def test_a_peer_answers_one_line_a_request() -> None:
    requests = "\n".join((json.dumps({"parameters": 10, "sites": 4}), "{}", "{}")) + "\n"
    command = [sys.executable, "-c", DUMMY, str(Path(peers.__file__).parent)]
    done = subprocess.run(command, input=requests, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0] == {"bytes": 40}
    assert all(answer["seconds"] >= 0 and answer["peak_bytes"] > 0 for answer in answers[1:])
    assert len(answers) == 3


def test_rows_and_plots_of_small_sizes(tmp_path: Path) -> None:
    rows = peers.measure(4096, 4, 1, {})
    ours = next(row for row in rows if row["what"] == "privagg BFV")
    assert ours["privagg_bfv_is_times"] == 1
    peers.plot(rows, tmp_path / "peers.png")
    sums = kernels.sums(5000, 4, 1)
    assert {row["uploads"] for row in sums} == {4}
    kernels.plot(sums, tmp_path / "kernels.png")
    assert {path.name for path in tmp_path.iterdir()} == {"peers.png", "kernels.png"}


def test_every_part_of_a_masked_sum_has_its_row() -> None:
    rows = masking.measure(500, Rule.choose(4, 3, 1), 1, {})
    assert {row["what"] for row in rows} >= {"a site's upload", "unmasking, 1 missing"}
    assert all(row["ms"] > 0 and row["bytes_a_value"] > 2.75 for row in rows)
