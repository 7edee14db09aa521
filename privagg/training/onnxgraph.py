"""ONNX graphs that read a table's declared columns, each cell as `privagg predict` reads it.

A column is an input of its own, (N, 1): float64 where numbers are declared, or categories that are
numbers, NaN standing for a missing cell; strings where the categories are texts, the empty one
standing for a missing cell. Dates come as what they count, time since the declared day. Missing
cells, codes for "not measured", values out of range and categories that were never declared are
treated inside the graph.

Source: ONNX operators, opset 20 (https://onnx.ai/onnx/operators/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from privagg.errors import ConfigError
from privagg.training.features import CategoricalFeature, NumericFeature, as_number
from privagg.training.table import TableSchema

OPSET = 20
"""The first with RegexFullMatch, which reads texts in any letters."""

IR_VERSION = 9
"""Of the file; runtimes from 2023 on read it."""

_BLANKS = "[ \\t-\\r\\x1c-\\x1f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*"
"""What `str.strip` takes off a text."""


class Graph:
    """Nodes in the order of their computing; every method gives the name of what it computes.

    Args:
        schema: the declared columns, which become the inputs.
    """

    def __init__(self, schema: TableSchema) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs = [_input(each) for each in schema.features]
        self._outputs: list[onnx.ValueInfoProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The one output of an operator.

        Args:
            kind: its ONNX name.
            inputs: names; an empty one is left out.
            attributes: of the operator.
        """
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: npt.ArrayLike, kind: npt.DTypeLike = np.float64) -> str:
        """Public numbers.

        Args:
            values: of any shape.
            kind: numpy's name of their type.
        """
        name = f"constant_{len(self._constants)}"
        array = np.asarray(values, dtype=kind)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def cast(self, name: str, kind: npt.DTypeLike) -> str:
        """The same values in another type."""
        return self.op("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def output(self, name: str, called: str, shape: Sequence[str | int], about: str) -> None:
        """Give a float64 result out.

        Args:
            name: of what was computed.
            called: how it is called outside.
            shape: of it.
            about: what it is, in a few words.
        """
        self._nodes.append(helper.make_node("Identity", [name], [called]))
        made = helper.make_tensor_value_info(
            called, onnx.TensorProto.DOUBLE, list(shape), doc_string=about
        )
        self._outputs.append(made)

    def written(self, name: str, facts: Mapping[str, str]) -> bytes:
        """The whole as a file.

        Args:
            name: of the graph.
            facts: that go into the file as metadata.

        Raises:
            ConfigError: onnx refuses it.
        """
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, initializer=self._constants
        )
        model = helper.make_model(
            graph,
            producer_name="privagg",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        helper.set_model_props(model, dict(facts))
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ConfigError(f"the model has no ONNX form: {error}") from error
        return bytes(model.SerializeToString())

    # --- cells ----------------------------------------------------------------------------------

    def numbers(self, feature: NumericFeature) -> tuple[str, str]:
        """A column's values within its range, float64 (N, 1), and where none is, bool (N, 1)."""
        missing = self.op("Or", self.op("IsNaN", feature.name), self.op("IsInf", feature.name))
        for code in feature.not_measured:
            same = self.op("Equal", feature.name, self.constant([code]))
            missing = self.op("Or", missing, same)
        low, high = (self.constant(end) for end in feature.range)
        known = self.op("Where", missing, self.constant([feature.range[0]]), feature.name)
        return self.op("Clip", known, low, high), missing

    def equal(self, feature: CategoricalFeature) -> list[str]:
        """Where a column holds each of its categories, bool (N, 1) each."""
        if _are_numbers(feature):
            numbers = [self.constant([as_number(each) or 0.0]) for each in feature.categories]
            return [self.op("Equal", feature.name, each) for each in numbers]
        texts = [str(each).strip() for each in feature.categories]
        exact = len({text.casefold() for text in texts}) < len(texts)
        return [
            self.op("RegexFullMatch", feature.name, pattern=_pattern(text, exact)) for text in texts
        ]

    def bins(
        self,
        feature: NumericFeature | CategoricalFeature,
        count: int,
        edges: Sequence[float] | None,
    ) -> str:
        """The bin of each record in a column, int64 (N, 1); the last is what is missing.

        Args:
            feature: the column.
            count: bins.
            edges: between them, a value on an edge lies below it; None of categories.
        """
        last = self.constant([count - 1], np.int64)
        if isinstance(feature, NumericFeature):
            values, missing = self.numbers(feature)
            below = self.cast(self.op("Less", self.constant([edges or ()]), values), np.int64)
            axes = self.constant([1], np.int64)
            return self.op("Where", missing, last, self.op("ReduceSum", below, axes))
        found = last
        for place, same in enumerate(self.equal(feature)):
            found = self.op("Where", same, self.constant([place], np.int64), found)
        return found

    def encoded(self, schema: TableSchema) -> str:
        """The declared columns as a gradient model's inputs, float32 (N, width)."""
        columns = list[str]()
        for feature in schema.features:
            if isinstance(feature, NumericFeature):
                columns += self._encoded_numbers(feature)
            else:
                hot = self.equal(feature)[1 if feature.drop_first else 0 :]
                scale = self.constant(feature.scale)
                columns += [self.op("Mul", self.cast(each, np.float64), scale) for each in hot]
        return self.cast(self.op("Concat", *columns, axis=1), np.float32)

    def _encoded_numbers(self, feature: NumericFeature) -> list[str]:
        values, missing = self.numbers(feature)
        low, high = (float(feature.transformed(np.float64(end))) for end in feature.range)
        if feature.transform == "signed-log":
            unit, one = self.constant(feature.log_unit), self.constant(1.0)
            size = self.op("Add", self.op("Div", self.op("Abs", values), unit), one)
            values = self.op("Mul", self.op("Sign", values), self.op("Log", size))
        shifted = self.op("Sub", values, self.constant(low))
        place = self.op("Div", shifted, self.constant(high - low))
        place = self.op("Sub", self.op("Mul", place, self.constant(2.0)), self.constant(1.0))
        place = self.op("Clip", place, self.constant(-1.0), self.constant(1.0))
        place = self.op("Where", missing, self.constant([feature.filled]), place)
        scale = self.constant(feature.scale)
        found = [place, self.cast(missing, np.float64)] if feature.indicator else [place]
        return [self.op("Mul", each, scale) for each in found]


def _are_numbers(feature: CategoricalFeature) -> bool:
    found = {as_number(each) is not None for each in feature.categories}
    if len(found) > 1:
        raise ConfigError(
            f"column {feature.name!r} has categories that are numbers beside some that are texts, "
            "and an ONNX input is one of both; take `privagg predict` for this model"
        )
    return found.pop()


def _input(feature: NumericFeature | CategoricalFeature) -> onnx.ValueInfoProto:
    kind, about = onnx.TensorProto.DOUBLE, "NaN: missing"
    if isinstance(feature, NumericFeature):
        about = f"{feature.range[0]:g} to {feature.range[1]:g}; {about}"
        if feature.since is not None:
            about = f"{feature.date_unit} since {feature.since}, {about}"
    else:
        named = ", ".join(map(str, feature.categories))
        if not _are_numbers(feature):
            kind, about = onnx.TensorProto.STRING, "empty: missing"
        about = f"one of {named}; {about}"
    return helper.make_tensor_value_info(feature.name, kind, ["N", 1], doc_string=about)


def _pattern(text: str, exact: bool) -> str:
    """What matches a cell that equals a declared text, in RE2 and in Python's `re`.

    Letters whose capitals are several letters (ß, SS) match in their declared spelling alone.
    """
    quoted = re.sub(r"[!-/:-@\[-^`{-~]", r"\\\g<0>", text)
    return f"{'' if exact else '(?i)'}{_BLANKS}{quoted}{_BLANKS}"
