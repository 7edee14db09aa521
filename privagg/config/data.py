"""The part of a configuration that says what data there are: columns and shapes, never values.

A Flower app of one's own reads its data itself; of it only the model's size is known here.
"""

from __future__ import annotations

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
from privagg.training.declared import DatasetSource, ImageSource, TableSource
from privagg.training.features import Feature
from privagg.training.table import TableSchema
from privagg.training.tablefile import TableFile
from privagg.training.targets import AnyTarget, NumberedClasses, TargetKind


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
    """

    classes: int = Field(ge=2)
    first_label: int = Field(default=0, ge=0, le=10**6)

    @property
    def target(self) -> TargetKind:
        """What is predicted."""
        return NumberedClasses(count=self.classes)

    @model_serializer(mode="wrap")
    def _usual_label_unsaid(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans pin what a configuration says: labels from 0 are what was meant without a word."""
        facts: dict[str, Any] = dump(self)
        return facts if self.first_label else {k: facts[k] for k in facts if k != "first_label"}


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


DataSection = Annotated[TableData | ImageData | DatasetData | AppData, Field(discriminator="kind")]
