"""The part of a configuration that says what data there are: columns and shapes, never values.

A Flower app of one's own reads its data itself; of it only the model's size is known here.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from privagg.errors import ConfigError
from privagg.training.declared import DatasetSource, ImageSource, TableSource
from privagg.training.features import Feature, TableSchema, Target


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
    """

    kind: Literal["table"] = "table"
    features: tuple[Feature, ...] = Field(min_length=1)
    target: Target
    drop_missing: bool = False

    @property
    def table_schema(self) -> TableSchema:
        """The schema every site encodes by."""
        return TableSchema(
            features=self.features, target=self.target, drop_missing=self.drop_missing
        )

    @property
    def source(self) -> TableSource:
        """How the sites' files are read."""
        return TableSource(self.table_schema)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one record's input: (encoded columns,)."""
        return (self.table_schema.width,)

    @property
    def classes(self) -> int:
        """Number of classes of the target."""
        return self.table_schema.class_count


class ImageData(Section):
    """Image sets in `.npy` files.

    Args:
        shape: (channels, height, width) as the model takes it.
        value_range: darkest and brightest value a pixel can have.
        classes: number of classes; labels are 0 ... classes - 1.
    """

    kind: Literal["images"]
    shape: tuple[int, int, int]
    value_range: tuple[float, float]
    classes: int = Field(ge=2)

    @property
    def source(self) -> ImageSource:
        """How the sites' files are read."""
        return ImageSource(self.shape, self.value_range, self.classes)


class DatasetData(Section):
    """torch data sets: each site's `data` is a `package.module:factory` that returns one.

    Args:
        shape: shape of one record's input.
        classes: number of classes.
    """

    kind: Literal["dataset"]
    shape: tuple[int, ...]
    classes: int = Field(ge=2)

    @property
    def source(self) -> DatasetSource:
        """How the sites' data sets are made."""
        return DatasetSource(self.shape, self.classes)


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
    def classes(self) -> NoReturn:
        """No model to build.

        Raises:
            ConfigError: always.
        """
        self._refuse("model")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(
            f"the {what} of this federation are a Flower app's own (data.kind = 'app'); "
            "run that app with Flower"
        )


DataSection = Annotated[TableData | ImageData | DatasetData | AppData, Field(discriminator="kind")]
