"""The list of algorithms is one: code, command and README say the same, and name what there is."""

import json
import re
from pathlib import Path
from typing import get_args

from typer.testing import CliRunner

from privagg.cli.app import app
from privagg.config.algorithms import MODES
from privagg.privacy.plan import mode_names
from privagg.programs.literature import ALGORITHMS, NOT_HERE, markdown
from privagg.training.algorithms import AlgorithmName

README = Path(__file__).parent.parent / "README.md"


def test_readme_has_the_tables_as_they_are() -> None:
    assert "\n".join(markdown()) in README.read_text()


def test_the_command_prints_each_row() -> None:
    printed = json.loads(CliRunner().invoke(app, ["algorithms", "--json"]).output)
    assert [row["name"] for row in printed["here"]] == [each.name for each in ALGORITHMS]
    assert [row["name"] for row in printed["not_here"]] == [each.name for each in NOT_HERE]
    text = CliRunner().invoke(app, ["algorithms"]).output
    assert all(each.name in text for each in (*ALGORITHMS, *NOT_HERE))


def test_each_algorithm_of_a_configuration_has_its_row_under_its_modes() -> None:
    named = " ".join(each.how for each in ALGORITHMS)
    for kind in set(get_args(AlgorithmName)) - {"fedavg", "fedrep"}:
        assert f'"{kind}"' in named
    for each in ALGORITHMS:
        assert set(each.modes) <= set(mode_names())
        found = re.search(r'algorithm = (?:{ kind = )?"([\w-]+)"', each.how)
        if found is not None:
            assert set(each.modes) == set(MODES[found[1]][0])
