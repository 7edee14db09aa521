"""Boosted trees as ONNX: the declared columns in, what `privagg predict` says out."""

from __future__ import annotations

import numpy as np

from privagg.programs.questions.columns import FloatArray
from privagg.programs.tables.calibration import STEEPEST
from privagg.programs.trees.losses import Amount, Hazards, Loss, MoreClasses, loss_of
from privagg.programs.trees.model import Trees
from privagg.training.modelcard import header_text
from privagg.training.onnxgraph import Graph


def onnx_of(trees: Trees) -> bytes:
    """Trees as an ONNX file, all of it in float64.

    The leaves are those of `Trees.scores`; their sum over trees is rounded in another order.

    Args:
        trees: finished ones.

    Raises:
        ConfigError: a column has numbers and texts as categories.
    """
    graph, loss = Graph(trees.data), loss_of(trees.data.target)
    features = {each.name: each for each in trees.data.features}
    codes = [
        graph.bins(features[each.column], len(each.labels), each.edges) for each in trees.columns
    ]
    leaf = _leaf_numbers(graph, trees, codes) if trees.trees else ""
    scores = [_score(graph, trees, codes, leaf, output) for output in range(loss.outputs)]
    found = _predictions(graph, loss, np.array(trees.base), graph.op("Concat", *scores, axis=1))
    names = ", ".join(trees.names)
    graph.output(found, "predictions", ["N", len(trees.names)], names)
    facts = trees.model_dump(mode="json", exclude={"columns", "data", "trees", "base"})
    facts |= {"target": trees.data.target.model_dump(mode="json"), "names": list(trees.names)}
    return graph.written("privagg_boosted_trees", {"privagg": header_text(facts)})


def _leaf_numbers(graph: Graph, trees: Trees, codes: list[str]) -> str:
    """Where each record's leaf of each tree stands among all leaves, int64 (N, T)."""
    depth = len(trees.trees[0].columns)
    parts = [np.zeros((len(each.labels), len(trees.trees)), np.int64) for each in trees.columns]
    for number, tree in enumerate(trees.trees):
        asked = zip(tree.columns, tree.sides, strict=True)
        for level, (at, sides) in enumerate(asked):
            answers = np.frombuffer(sides.encode(), np.uint8).astype(np.int64) - ord("0")
            parts[at][:, number] += answers << (depth - 1 - level)
    found = graph.constant([np.arange(len(trees.trees)) << depth], np.int64)
    axes = graph.constant([1], np.int64)
    for own, part in zip(codes, parts, strict=True):
        if part.any():
            flat = graph.op("Squeeze", own, axes)
            found = graph.op("Add", found, graph.op("Gather", graph.constant(part, np.int64), flat))
    return found


def _score(graph: Graph, trees: Trees, codes: list[str], leaf: str, output: int) -> str:
    """What bins and leaves add up to, float64 (N, 1)."""
    effects = [np.array(each.effects[output]) for each in trees.columns]
    found = [
        graph.op("Gather", graph.constant(each), own)
        for own, each in zip(codes, effects, strict=True)
    ]
    if leaf:
        leaves = np.concatenate([each.leaves[output] for each in trees.trees])
        axes = graph.constant([1], np.int64)
        found.append(graph.op("ReduceSum", graph.op("Gather", graph.constant(leaves), leaf), axes))
    return graph.op("Sum", *found)


def _predictions(graph: Graph, loss: Loss, base: FloatArray, scores: str) -> str:
    """As `Loss.predictions`, float64 (N, n)."""
    if isinstance(loss, Amount):
        place = graph.op("Mul", scores, graph.constant(loss.reach))
        place = graph.op("Add", place, graph.constant(base[0]))
        place = graph.op("Clip", place, graph.constant(0.0), graph.constant(1.0))
        place = graph.op("Mul", place, graph.constant(loss.width))
        return graph.op("Add", place, graph.constant(loss.low))
    ends = (graph.constant(-STEEPEST), graph.constant(STEEPEST))
    logits = graph.op("Clip", graph.op("Add", scores, graph.constant([base])), *ends)
    if isinstance(loss, MoreClasses):
        return graph.op("Softmax", logits, axis=1)
    if isinstance(loss, Hazards):
        odds = graph.op("Add", graph.op("Exp", logits), graph.constant(1.0))
        whole = graph.op("CumSum", graph.op("Log", odds), graph.constant(1, np.int64))
        return graph.op("Exp", graph.op("Neg", whole))
    return graph.op("Sigmoid", logits)
