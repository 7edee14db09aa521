"""Trained models as ONNX: the declared columns in, what is predicted out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.errors import ConfigError
from privagg.training.modelcard import ModelCard, header_text
from privagg.training.models import Centre
from privagg.training.onnxgraph import Graph
from privagg.training.targets import ClassKind, MultiLabel, Regression, TargetKind


def onnx_of(card: ModelCard, model: nn.Module) -> bytes:
    """A model as an ONNX file; its predictions are `privagg predict`'s, but for float32's rounding.

    Args:
        card: what the model's file says of it.
        model: with the file's tensors.

    Raises:
        ConfigError: it is of a kind, or predicts something, that is not written as ONNX.
    """
    schema = card.table_schema
    graph = Graph(schema)
    found = graph.encoded(schema)
    for layer in model.children():
        found = _layer(graph, layer, found, card.model.kind)
    name, shape = _predicted(graph, schema.target, graph.cast(found, np.float64))
    graph.output(name, "predictions", shape, ", ".join(schema.target.prediction_names))
    facts = card.model_dump(mode="json", exclude={"inputs", "shape"})
    return graph.written("privagg_model", {"privagg": header_text(facts)})


def _layer(graph: Graph, layer: nn.Module, inputs: str, kind: str) -> str:
    if isinstance(layer, nn.Flatten):
        return inputs
    if isinstance(layer, nn.ReLU):
        return graph.op("Relu", inputs)
    if isinstance(layer, nn.Linear):
        weight = graph.constant(_values(layer.weight), np.float32)
        bias = [] if layer.bias is None else [graph.constant(_values(layer.bias), np.float32)]
        return graph.op("Gemm", inputs, weight, *bias, transB=1)
    if isinstance(layer, Centre):
        centre = graph.constant(_values(layer.centre), np.float32)
        rows = graph.op("Shape", inputs, start=0, end=1)
        shape = graph.op("Concat", rows, graph.constant([1], np.int64), axis=0)
        ones = graph.op("Expand", graph.constant([[layer.constant]], np.float32), shape)
        return graph.op("Concat", graph.op("Sub", inputs, centre), ones, axis=1)
    raise ConfigError(
        f"a model of kind {kind!r} is not written as ONNX; logistic, mlp and scorecards are"
    )


def _predicted(graph: Graph, target: TargetKind, outputs: str) -> tuple[str, list[str | int]]:
    """What is predicted, float64, and its shape."""
    if isinstance(target, ClassKind):
        if target.outputs == 1:
            nothing = graph.op("Mul", outputs, graph.constant(0.0))
            outputs = graph.op("Concat", nothing, outputs, axis=1)
        return graph.op("Softmax", outputs, axis=1), ["N", target.class_count]
    if isinstance(target, MultiLabel):
        return graph.op("Sigmoid", outputs), ["N", target.outputs]
    if isinstance(target, Regression) and target.loss in ("squared", "huber"):
        low, high = target.range
        place = graph.op("Add", outputs, graph.constant(1.0))
        shift = graph.op("Mul", place, graph.constant((high - low) / 2))
        amount = graph.op("Add", shift, graph.constant(low))
        return graph.op("Clip", amount, *(graph.constant(end) for end in (low, high))), ["N", 1]
    raise ConfigError(
        f"{target.predicted} have no ONNX form here; take `privagg predict` for this model"
    )


def _values(parameter: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(parameter.detach().numpy(), dtype=np.float32)
