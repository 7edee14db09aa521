"""The part of a configuration that says what data there are: columns and shapes, never values.

A Flower app of one's own reads its data itself; of it only the model's size is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, NoReturn, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from privagg.errors import ConfigError, fault_words
from privagg.programs.facts.categories import CategoryFacts
from privagg.programs.facts.program import AnyFact, undeclared
from privagg.training.declared import DatasetSource, ImageSource, TableSource
from privagg.training.features import Feature
from privagg.training.table import TableSchema
from privagg.training.tablefile import TableFile
from privagg.training.targets import AnyTarget, NumberedClasses, Target, TargetKind
from privagg.training.targets.weights import Weight


class Section(BaseModel):
    """A section of the file: unknown keys are errors, so that a typo never becomes a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, values: Any) -> Any:
        """`rounds = true` would read as 1."""
        for key, value in values.items() if isinstance(values, dict) else ():
            kinds = cls.model_fields[key].annotation if key in cls.model_fields else None
            if isinstance(value, bool) and {int, float, Decimal} & {kinds, *get_args(kinds)}:
                raise ValueError(f"{key} should be a number, not true or false")
        return values


class TableData(Section):
    """Tables: every column that is used, with its public range or categories.

    Args:
        features: columns that become inputs, in this order.
        target: the column that is predicted.
        drop_missing: leave rows with a missing value out.
        file: how the sites' files are written, where they do not say otherwise themselves.
    """

    kind: Literal["table"] = "table"
    features: tuple[Feature, ...] = Field(min_length=1)
    target: AnyTarget
    drop_missing: bool = False
    file: TableFile = TableFile()

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        try:
            _ = self.table_schema
        except ValidationError as error:
            raise ValueError("; ".join(map(fault_words, error.errors()))) from error
        if strange := next(self.file.strange_to(self.table_schema), ""):
            raise ValueError(f"data.file: {strange}")
        return self

    @property
    def table_schema(self) -> TableSchema:
        """The schema every site encodes by."""
        return TableSchema(
            features=self.features, target=self.target, drop_missing=self.drop_missing
        )

    @property
    def source(self) -> TableSource:
        """How the sites' files are read."""
        return TableSource(self.table_schema, self.file)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one record's input: (encoded columns,)."""
        return (self.table_schema.width,)


class LabelledData(Section):
    """Records whose labels are whole numbers.

    Args:
        classes: number of classes.
        first_label: label of the first class; labels are first_label ... first_label + classes - 1.
        class_weights: what a record of each class counts in the loss; all alike by default.
    """

    classes: int = Field(ge=2)
    first_label: int = Field(default=0, ge=0, le=10**6)
    class_weights: tuple[Weight, ...] | None = None

    @model_validator(mode="after")
    def _a_weight_for_each_class(self) -> Self:
        if self.class_weights is not None and len(self.class_weights) != self.classes:
            raise ValueError(
                f"class_weights has {len(self.class_weights)} numbers for {self.classes} classes; "
                "give one for each"
            )
        return self

    @property
    def target(self) -> TargetKind:
        """What is predicted."""
        return NumberedClasses(count=self.classes, class_weights=self.class_weights)

    @model_serializer(mode="wrap")
    def _usual_label_unsaid(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans pin what a configuration says: labels from 0 and equal weights are left unsaid."""
        facts: dict[str, Any] = dump(self)
        said = {"first_label": self.first_label, "class_weights": self.class_weights}
        return {key: facts[key] for key in facts if said.get(key, True)}


class ImageData(LabelledData):
    """Image sets in `.npy` files; classes and labels as `LabelledData` has them.

    Args:
        shape: (channels, height, width) as the model takes it.
        value_range: darkest and brightest value a pixel can have.
    """

    kind: Literal["images"]
    shape: tuple[int, int, int]
    value_range: tuple[float, float]

    @property
    def source(self) -> ImageSource:
        """How the sites' files are read."""
        return ImageSource(self.shape, self.value_range, self.classes, self.first_label)


class DatasetData(LabelledData):
    """torch data sets: each site's `data` is a `package.module:factory` that returns one.

    Args:
        shape: shape of one record's input.
    """

    kind: Literal["dataset"]
    shape: tuple[int, ...]

    @property
    def source(self) -> DatasetSource:
        """How the sites' data sets are made."""
        return DatasetSource(self.shape, self.classes, self.first_label)


class AppData(Section):
    """A Flower app of one's own: it reads the data and trains the model, and privagg sees neither.

    Args:
        parameters: values in all arrays of the app's model together.
    """

    kind: Literal["app"]
    parameters: int = Field(ge=1, le=10**10)

    @property
    def source(self) -> NoReturn:
        """Nothing to read.

        Raises:
            ConfigError: always.
        """
        self._refuse("data")

    @property
    def shape(self) -> NoReturn:
        """No model to build.

        Raises:
            ConfigError: always.
        """
        self._refuse("model")

    @property
    def target(self) -> NoReturn:
        """No model to build.

        Raises:
            ConfigError: always.
        """
        self._refuse("model")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(
            f"the {what} of this federation is a Flower app's own (data.kind = 'app'), and an app "
            "runs on Flower: privagg run CONFIG --runtime flower --deployment FOLDER"
        )


UNKNOWN_TARGET = Target(name="unknown", positive="== 1")
"""Stands for a target that is not declared yet."""


class UndeclaredData(Section):
    """Tables of whose columns no range or category is declared yet: `[facts]` asks for them.

    Args:
        target: the column that is predicted, where it is declared already.
        drop_missing, file: as for tables.
    """

    kind: Literal["undeclared"]
    target: AnyTarget = UNKNOWN_TARGET
    drop_missing: bool = False
    file: TableFile = TableFile()

    @property
    def source(self) -> NoReturn:
        """Not known yet.

        Raises:
            ConfigError: always.
        """
        self._refuse()

    @property
    def shape(self) -> NoReturn:
        """Not known yet.

        Raises:
            ConfigError: always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "no column is declared yet under [[data.features]], so nothing can be trained; ask for "
            "what to declare: privagg ask --for CONFIG --apply"
        )


DataSection = Annotated[
    TableData | UndeclaredData | ImageData | DatasetData | AppData, Field(discriminator="kind")
]


def table_to_ask(data: TableData | UndeclaredData, columns: Sequence[AnyFact]) -> TableData:
    """The table as one of whose columns nothing is known but how each is read.

    Args:
        data: as declared; its target stays.
        columns: those whose facts are asked.

    Raises:
        ValueError: it is not said which column is the target, or there is no other.
    """
    marked = [each.name for each in columns if isinstance(each, CategoryFacts) and each.target]
    declared = "target" in data.model_fields_set
    if len(marked) + declared == 0:
        raise ValueError(
            "say which column is predicted: declare it as [data] target, or have its classes "
            "proposed by `target = true` at a column of [facts] of kind 'category'"
        )
    if len({*marked, *([data.target.name] if declared else [])}) > 1:
        told = " and ".join(dict.fromkeys([*([data.target.name] if declared else []), *marked]))
        raise ValueError(f"only one column is the target, and {told} are said to be")
    target = data.target if declared else Target(name=marked[0], positive="== 1")
    asked = undeclared(each for each in columns if each.name not in target.columns)
    names = {each.name for each in asked}
    others = data.features if isinstance(data, TableData) else ()
    features = (*asked, *(each for each in others if each.name not in names))
    if not features:
        raise ValueError("[facts] asks of at least one column besides the target")
    return TableData(
        features=features, target=target, drop_missing=data.drop_missing, file=data.file
    )
