"""What answers say: each figure in a sentence or in the table, and what cannot be told."""

from __future__ import annotations

import pytest

from privagg.report.answered import told_answer
from privagg.report.language import speaking
from privagg.report.model import AnsweredFigure, Ends, Errors


def figure(what: str, value: float | None, ends: Ends | None, **group: str) -> AnsweredFigure:
    return AnsweredFigure(
        what=what, group=group, value=value, raw=value or 0.0, records=ends, population=ends
    )


FAR = Ends(low=2.0, high=4.0)


@pytest.mark.parametrize(
    ("value", "ends", "says"),
    [
        (3.0, FAR, "slope is about 3: for these records between 2 and 4"),
        (3.0, Ends(low=3.0, high=3.0), "slope is 3."),
        (3.0, None, "The noise leaves no interval for what came out as slope 3: do not use"),
    ],
)
def test_a_figure_says_how_sure_it_is(value: float, ends: Ends | None, says: str) -> None:
    (text,) = told_answer([figure("slope", value, ends)], 0.95).sentences
    assert text.startswith(says)


def test_what_cannot_be_told_is_one_sentence_after_what_can() -> None:
    wide = Ends(low=0.0, high=1.0)
    lost = [figure("survival at 440", None, wide, sex=each) for each in "fm"]
    first, last = told_answer([*lost, figure("count", 9.0, wide)], 0.95).sentences
    assert first.startswith("count is about 9")
    assert last == (
        "Too few records for the noise to tell: survival at 440 (sex = f); survival at 440 "
        "(sex = m)."
    )
    with speaking("zh"):
        assert "sex = m" in told_answer(lost, 0.95).sentences[0]


def test_few_figures_are_told_in_sentences_and_of_many_only_the_first() -> None:
    """Each in one place, whichever it is."""
    for count in range(1, 9):
        figures = [
            figure("count", float(number), FAR, ward=f"w{number}") for number in range(count)
        ]
        figures.insert(1, figure("mean", None, None, ward="lost"))
        figures.append(figure("slope", 77.0, None))
        found = told_answer(figures, 0.95)
        assert len(found.rows) == (0 if count <= 3 else count - 1)
        places = [*found.sentences, *(row[0] for row in found.rows)]
        for each in figures:
            name = each.group.get("ward", each.what)
            assert sum(name in place for place in places) == 1
        assert {len(row) for row in found.rows} <= {len(found.columns)}


def test_standard_errors_stand_in_the_table_where_there_are_any() -> None:
    figures = [figure("count", 9.0, FAR), *(figure("coefficient", 1.0, FAR) for _ in range(3))]
    assert len(told_answer(figures, 0.95).columns) == 4
    errors = Errors(records=0.5, population=0.75)
    figures[2] = figures[2].model_copy(update={"standard_errors": errors})
    found = told_answer(figures, 0.95)
    assert found.columns[4:] == ("Standard error by noise", "with sampling")
    assert [row[4:] for row in found.rows] == [("–", "–"), ("0.5", "0.75"), ("–", "–")]
