"""The command line called in this process, which has its imports behind it."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from privagg.cli import main


class Answer(NamedTuple):
    """How one call ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(
    *words: object, where: Path | None = None, answers: str = "", **environment: str
) -> Answer:
    """`privagg WORDS`, typed in a folder; whoever asks gets no answer but these.

    Args:
        words: what is typed.
        where: the folder to type it in; this process's own by default.
        answers: what is typed where the command asks, a line an answer.
        environment: variables that are set meanwhile.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["privagg", *map(str, words)])
        patch.setattr(sys, "stdin", io.StringIO(answers))
        if where is not None:
            patch.chdir(where)
        for name, value in environment.items():
            patch.setenv(name, value)
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ending:
            main()
    code = ending.value.code
    return Answer(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())
