"""A scorecard as ONNX: the declared columns in, points and what they stand for out."""

from __future__ import annotations

import numpy as np

from privagg.programs.scorecard.card import DECIMALS, Card, CardBlock
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.modelcard import header_text
from privagg.training.onnxgraph import Graph


def onnx_of(card: Card) -> bytes:
    """A card as an ONNX file, all of it in float64: the points are those of `Card.points`.

    Args:
        card: the card.

    Raises:
        ConfigError: a column has numbers and texts as categories.
    """
    graph = Graph(card.data)
    codes = {each.name: each for each in card.data.features}
    parts = [_points(graph, block, codes) for block in card.blocks]
    whole = graph.op("Add", graph.op("Sum", *parts), graph.constant(card.start))
    tenths = graph.constant(10.0**DECIMALS)
    points = graph.op("Div", graph.op("Round", graph.op("Mul", whole, tenths)), tenths)
    nothing = graph.constant(card.scaling.start(0.0, card.counts_up))
    steps = graph.constant(card.scaling.per_logit(card.counts_up))
    logits = graph.op("Div", graph.op("Sub", points, nothing), steps)
    chance = graph.op("Sigmoid", graph.op("Clip", logits, *map(graph.constant, (-500.0, 500.0))))
    about = "the chance of the second class"
    if (ends := card.data.target.range_of(card.data.target.name)) is not None:
        low, high = ends
        stretched = graph.op("Mul", chance, graph.constant(high - low))
        chance, about = graph.op("Add", stretched, graph.constant(low)), "the expected amount"
    graph.output(points, "points", ["N", 1], "points, which add up")
    graph.output(chance, "predictions", ["N", 1], about)
    facts = card.model_dump(mode="json", exclude={"blocks", "data"})
    facts["target"] = card.data.target.model_dump(mode="json")
    return graph.written("privagg_scorecard", {"privagg": header_text(facts)})


def _points(
    graph: Graph, block: CardBlock, features: dict[str, NumericFeature | CategoricalFeature]
) -> str:
    """The points of a block's bins, float64 (N, 1)."""
    places = [
        _bins(graph, features[name], len(labels), edges)
        for name, labels, edges in zip(block.columns, block.labels, block.edges, strict=True)
    ]
    found = places[0]
    for place, labels in zip(places[1:], block.labels[1:], strict=True):
        size = graph.constant(len(labels), np.int64)
        found = graph.op("Add", graph.op("Mul", found, size), place)
    return graph.op("Gather", graph.constant(block.points), found)


def _bins(
    graph: Graph,
    feature: NumericFeature | CategoricalFeature,
    count: int,
    edges: tuple[float, ...] | None,
) -> str:
    """The bin of each record in one column, int64 (N, 1); the last is what is missing."""
    last = graph.constant([count - 1], np.int64)
    if isinstance(feature, NumericFeature):
        values, missing = graph.numbers(feature)
        below = graph.cast(graph.op("Less", graph.constant([edges or ()]), values), np.int64)
        axes = graph.constant([1], np.int64)
        return graph.op("Where", missing, last, graph.op("ReduceSum", below, axes))
    found = last
    for place, same in enumerate(graph.equal(feature)):
        found = graph.op("Where", same, graph.constant([place], np.int64), found)
    return found
