"""Axes read back: labels tell the numbers they stand at, and no text stands in another."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import log10
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from privagg.report.axes import FONT, Axes, Key, Names, Scale, between, stepped, text_length

DRAWS = 300


def read(axes: Axes) -> Any:
    return ElementTree.fromstring(axes.svg())


def number(text: str) -> float:
    told = float(text.removesuffix("%").replace("\N{MINUS SIGN}", "-"))
    return told / 100 if text.endswith("%") else told


def labels(tree: Any, anchor: str) -> list[tuple[float, float]]:
    """Place and number of each tick of x (`middle`) or of y (`end`)."""
    side = "x" if anchor == "middle" else "y"
    texts = [each for each in tree.iter("text") if each.get("text-anchor") == anchor]
    return [(float(each.get(side)), number(each.text)) for each in texts]


def wide(text: str) -> float:
    """How long a text is in the font of paper, as matplotlib sets it."""
    return sum(map(advance, text))


@cache
def advance(letter: str) -> float:
    font = FontProperties("DejaVu Sans")
    apart, together = (
        TextPath((0, 0), text, FONT, prop=font).get_extents().width
        for text in (f"l{letter}l", "ll")
    )
    return float(apart - together)


def scales(seed: int) -> Scale:
    """A scale of any size, place and kind."""
    random = Random(seed)
    size = 10 ** random.uniform(-9, 12)
    low = random.choice([0.0, random.uniform(-1, 1) * size * 10 ** random.uniform(0, 4)])
    whole, share = random.choice([(False, False), (False, False), (True, False), (False, True)])
    if share:
        return Scale(0, random.uniform(0.001, 1.1), share=True)
    if random.random() < 0.3:
        return Scale(size, size * 10 ** random.uniform(0.01, 20), ratio=True)
    return Scale(low, low + size, whole=whole)


@pytest.mark.parametrize("side", ["x", "y"])
def test_ticks_stand_where_their_numbers_lie(side: str) -> None:
    for seed in range(DRAWS):
        scale, other = scales(seed), Scale(0, 1, most=0)
        axes = Axes(300, 200, scale if side == "x" else other, scale if side == "y" else other)
        if side == "x":
            axes.mark((scale.low, 0), "ink"), axes.mark((scale.high, 0), "ink")
        else:
            axes.mark((0, scale.low), "ink"), axes.mark((0, scale.high), "ink")
        tree = read(axes)
        first, last = (float(each.get(f"c{side}")) for each in tree.iter("circle"))
        turned = log10 if scale.ratio else float
        for place, told in labels(tree, "middle" if side == "x" else "end"):
            part = (turned(told) - turned(scale.low)) / (turned(scale.high) - turned(scale.low))
            shift = 3 if side == "y" else 0  # half a letter's height
            assert place == pytest.approx(first + part * (last - first) + shift, abs=0.02), seed
            assert not scale.whole or told == round(told)


def test_no_text_of_a_scale_stands_in_another_or_leaves_the_drawing() -> None:
    for seed in range(DRAWS):
        width = Random(seed).uniform(60, 320)
        tree = read(Axes(width, 150, scales(seed), scales(seed + DRAWS), below="x", beside="y"))
        for each in tree.iter("text"):
            if each.get("text-anchor") == "end":
                assert float(each.get("x")) >= wide(each.text), (seed, each.text)
        ticks = [each for each in tree.iter("text") if each.get("text-anchor") == "middle"]
        ends = [
            (float(each.get("x")) - wide(each.text) / 2, float(each.get("x")) + wide(each.text) / 2)
            for each in ticks
            if each.text not in "xy"
        ]
        assert all(a[1] < b[0] for a, b in pairwise(sorted(ends))), seed


@pytest.mark.parametrize(
    "text", ["0.0000", "budget 2.5", "100%", "sex = other or missing", "MMMM@"]
)
def test_a_text_is_no_longer_than_thought(text: str) -> None:
    assert wide(text) <= text_length(text) <= 1.5 * wide(text)


def test_a_close_scale_has_labels_that_differ() -> None:
    found = next(Scale(0.999999, 1.000001).ticks())
    assert len({text for _, text in found}) == len(found) >= 3
    assert next(Scale(0.9912, 0.9931, share=True).ticks())[0][1] == "99.15%"


def test_what_lies_beyond_a_scale_is_drawn_at_its_end() -> None:
    axes = Axes(100, 100, Scale(0, 1), Scale(0, 1))
    for x in (-5.0, 0.0, 1.0, 1e9):
        axes.mark((x, 0.5), "ink")
    low, zero, one, high = (each.get("cx") for each in read(axes).iter("circle"))
    assert (low, high) == (zero, one)


def test_steps_keep_each_height_until_the_next() -> None:
    line = [(0.0, 1.0), (2.0, 3.0), (4.0, 3.0)]
    assert stepped(line) == [(0, 1), (2, 1), (2, 3), (4, 3), (4, 3)]
    assert between(line, line) == [*stepped(line), *reversed(stepped(line))]


def test_a_legend_takes_the_lines_it_needs_and_rows_stand_by_their_names() -> None:
    names, keys = ("<one>", "two", "three"), [Key(text * 8, "warn", "cross") for text in "abcd"]
    axes = Axes(200, 150, Scale(0, 1), Names(names), keys=keys)
    for row in range(3):
        axes.mark((0.5, row), "ink")
    tree = read(axes)
    places = {each.text: float(each.get("y")) for each in tree.iter("text")}
    marks = [float(each.get("cy")) for each in tree.iter("circle")]
    assert marks == pytest.approx([places[name] - 3 for name in names])
    texts = [each for each in tree.iter("text") if each.get("text-anchor") == "start"]
    assert all(float(each.get("x")) + wide(each.text) < 200 for each in texts)
    assert len({each.get("y") for each in texts}) == 2
    assert min(marks) > max(float(each.get("y")) for each in texts)
