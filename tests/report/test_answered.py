"""What figures say in sentences: told ones one by one, and what cannot be told."""

from __future__ import annotations

import pytest

from privagg.report.answered import sentences
from privagg.report.language import speaking
from privagg.report.model import AnsweredFigure, Ends


def figure(what: str, value: float | None, ends: Ends | None, **group: str) -> AnsweredFigure:
    return AnsweredFigure(
        what=what, group=group, value=value, raw=value or 0.0, records=ends, population=ends
    )


@pytest.mark.parametrize(
    ("value", "ends", "says"),
    [
        (3.0, Ends(low=2.0, high=4.0), "slope is about 3: for these records between 2 and 4"),
        (3.0, Ends(low=3.0, high=3.0), "slope is 3."),
        (3.0, None, "slope comes out as 3, and the noise leaves no interval for it: do not use"),
    ],
)
def test_a_figure_says_how_sure_it_is(value: float, ends: Ends | None, says: str) -> None:
    (text,) = sentences([figure("slope", value, ends)], 0.95)
    assert text.startswith(says)


def test_what_cannot_be_told_is_one_sentence_after_what_can() -> None:
    wide = Ends(low=0.0, high=1.0)
    lost = [figure("survival at 440", None, wide, sex=each) for each in "fm"]
    first, last = sentences([*lost, figure("count", 9.0, wide)], 0.95)
    assert first.startswith("count is about 9")
    assert last == (
        "Too few records for the noise to tell: survival at 440 (sex = f); survival at 440 "
        "(sex = m)."
    )
    with speaking("zh"):
        assert "sex = m" in sentences(lost, 0.95)[0]
