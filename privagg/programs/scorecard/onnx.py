"""A scorecard as ONNX: the declared columns in, points and what they stand for out."""

from __future__ import annotations

import numpy as np

from privagg.programs.scorecard.card import DECIMALS, Card, CardBlock
from privagg.programs.scorecard.cards import LEAST_CHANCE, Cards
from privagg.training.features import CategoricalFeature, NumericFeature
from privagg.training.modelcard import header_text
from privagg.training.onnxgraph import Graph


def onnx_of(card: Card | Cards) -> bytes:
    """A card, or one of each class, as an ONNX file, all of it in float64.

    Its `points` are those of `Card.points`, to the last bit.

    Args:
        card: the card, or the cards.

    Raises:
        ConfigError: a column has numbers and texts as categories.
    """
    graph = Graph(card.data)
    if isinstance(card, Card):
        points, found = _one(graph, card)
        about, count, name = "the chance of the second class", 1, "privagg_scorecard"
        if card.is_amount:
            about = "the expected amount"
    else:
        each = [_one(graph, one) for one in card.cards]
        points, chances = (graph.op("Concat", *some, axis=1) for some in zip(*each, strict=True))
        chances = graph.op("Max", chances, graph.constant(LEAST_CHANCE))
        axes = graph.constant([1], np.int64)
        found = graph.op("Div", chances, graph.op("ReduceSum", chances, axes))
        count, name = len(card.cards), "privagg_scorecards"
        about = f"the chances of {', '.join(str(one.label) for one in card.cards)}"
    graph.output(points, "points", ["N", count], "points, which add up")
    graph.output(found, "predictions", ["N", count], about)
    facts = card.model_dump(mode="json", exclude={"blocks", "data", "cards"})
    facts["target"] = card.data.target.model_dump(mode="json")
    return graph.written(name, {"privagg": header_text(facts)})


def _one(graph: Graph, card: Card) -> tuple[str, str]:
    """A card's points and what they stand for, float64 (N, 1) each."""
    codes = {each.name: each for each in card.data.features}
    parts = [_points(graph, block, codes) for block in card.blocks]
    whole = graph.op("Add", graph.op("Sum", *parts), graph.constant(card.start))
    tenths = graph.constant(10.0**DECIMALS)
    points = graph.op("Div", graph.op("Round", graph.op("Mul", whole, tenths)), tenths)
    nothing = graph.constant(card.scaling.start(0.0, card.counts_up))
    steps = graph.constant(card.scaling.per_logit(card.counts_up))
    logits = graph.op("Div", graph.op("Sub", points, nothing), steps)
    chance = graph.op("Sigmoid", graph.op("Clip", logits, *map(graph.constant, (-500.0, 500.0))))
    if (ends := card.data.target.range_of(card.data.target.name)) is not None:
        low, high = ends
        stretched = graph.op("Mul", chance, graph.constant(high - low))
        chance = graph.op("Add", stretched, graph.constant(low))
    return points, chance


def _points(
    graph: Graph, block: CardBlock, features: dict[str, NumericFeature | CategoricalFeature]
) -> str:
    """The points of a block's bins, float64 (N, 1)."""
    places = [
        graph.bins(features[name], len(labels), edges)
        for name, labels, edges in zip(block.columns, block.labels, block.edges, strict=True)
    ]
    found = places[0]
    for place, labels in zip(places[1:], block.labels[1:], strict=True):
        size = graph.constant(len(labels), np.int64)
        found = graph.op("Add", graph.op("Mul", found, size), place)
    return graph.op("Gather", graph.constant(block.points), found)
