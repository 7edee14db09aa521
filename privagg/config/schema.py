"""The configuration file: what a federation agrees on, checked before anything runs.

A configuration says public things only. From it follow, in this order, the training plan (with its
noise), the schema every site encodes its records by, and the places where files go.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, PrivateAttr, ValidationError, model_validator

from privagg.config.consistent import require_consistent
from privagg.config.data import TableData
from privagg.config.faults import explain
from privagg.config.proposal import Proposed, PublicFacts, expected_square, propose
from privagg.config.whole import Whole
from privagg.errors import ConfigError
from privagg.training.targets import ClassKind

_Filled = TypeVar("_Filled", bound=BaseModel)


def _filled(section: _Filled, path: list[str], value: Any) -> _Filled | None:
    """The section with this setting in it; None where the file says it."""
    name, *rest = path
    if rest:
        value = _filled(getattr(section, name), rest, value)
    elif name in section.model_fields_set:
        return None
    return None if value is None else section.model_copy(update={name: value})


class Config(Whole):
    """A whole configuration file whose sections agree, with what it leaves out proposed.

    Args:
        federation, privacy, training, secure, compression, data, sites, evaluation, tuning, ask:
            as for `Whole`.
        questions, facts, attestations: likewise.
    """

    _proposed: tuple[Proposed, ...] = PrivateAttr(default=())

    @property
    def proposed(self) -> tuple[Proposed, ...]:
        """Settings that the file left out and that were proposed; empty where it has rounds."""
        return self._proposed

    @model_validator(mode="before")
    @classmethod
    def _data_is_a_table_by_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        data = values.get("data", {} if "facts" in values else None)
        if isinstance(data, dict):
            undeclared = "facts" in values and "features" not in data
            return {**values, "data": {"kind": "undeclared" if undeclared else "table", **data}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_consistent(self)
        return self

    @model_validator(mode="after")
    def _left_out(self) -> Self:
        """Fills what the file leaves out, where it leaves rounds out."""
        if self.training.rounds is not None:
            return self
        if fault := self._unknown_to_proposals():
            raise ValueError(
                f"training.rounds is missing; settings are proposed for {fault} only: say how "
                "often the sum is to be opened"
            )
        found, told = self, list[Proposed]()
        for proposed in propose(self._public_facts()):
            filled = _filled(found, proposed.key.split("."), proposed.value)
            if filled is not None:
                found, told = filled, [*told, proposed]
        found._proposed = tuple(told)
        return found

    def filled(self, key: str, value: Any) -> Config:
        """The same with a setting that the file leaves out; as it is where the file says it.

        Args:
            key: such as `privacy.sensitivity_grid`.
            value: None leaves it out.
        """
        return _filled(self, key.split("."), value) or self

    def _unknown_to_proposals(self) -> str:
        """What proposals are made for and this is not; empty where it is."""
        if not isinstance(self.data, TableData) or not isinstance(self.data.target, ClassKind):
            return "tables whose target is a class"
        if self.training.model.kind != "logistic":
            return "the model 'logistic'"
        if self.training.loss is not None:
            return "the target's own loss (no training.loss)"
        if self.privacy.mode != "record-distributed":
            return "privacy.mode = 'record-distributed'"
        if self.compression is not None and self.compression.keep < 1:
            return "uploads of all coordinates (compression.keep = 1)"
        if self.privacy.noise_multiplier is not None:
            return "noise that follows from epsilon (no privacy.noise_multiplier)"
        return ""

    def _public_facts(self) -> PublicFacts:
        assert isinstance(self.data, TableData)
        records = [site.records for site in self.sites]
        privacy, outputs = self.privacy, self.data.target.outputs
        return PublicFacts(
            epsilon=self.training_epsilon,
            delta=privacy.delta,
            records=sum(records),
            largest_site=max(records),
            parameters=outputs * (self.data.shape[0] + 1),
            square=expected_square(self.data.features),
            sites=len(records),
            shares=len(records) - privacy.dropouts - privacy.colluders,
        )


def load_config(path: str | Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a wrong type or a contradiction; the
            message names the key and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}; `privagg init {path}` writes one") from error
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}; name a TOML file, such as "
            "`privagg init` writes"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: byte {error.start} is not UTF-8; save the "
            "file as UTF-8"
        ) from error
    try:
        values = tomllib.loads(text, parse_float=_exact)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; nested as often
        raise ConfigError(
            f"{path} is not valid TOML: {error}; in TOML texts stand in quotation marks, decimals "
            "have a point, and a section comes once: compare what `privagg init` writes"
        ) from error
    return parse_config(values, source=str(path))


def parse_config(values: dict[str, Any], *, source: str = "configuration") -> Config:
    """Check a configuration given as plain values.

    Raises:
        ConfigError: as `load_config`.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, values, Config)}") from error


def tuning_candidates(config: Config) -> list[tuple[dict[str, Any], Config]]:
    """Every combination of the `[tuning]` grid's values, each a configuration that was checked.

    Returns:
        (settings by dotted name, the configuration with them); empty without a grid.

    Raises:
        ConfigError: a combination cannot be used.
    """
    found: list[tuple[dict[str, Any], Config]] = []
    tuning = config.tuning
    if tuning is None:
        return found
    for values in product(*tuning.grid.values()):
        settings = dict(zip(tuning.grid, values, strict=True))
        facts = config.model_dump(exclude_unset=True, exclude={"tuning"})
        for key, value in settings.items():
            _put(facts, key.split("."), value)
        found.append(
            (settings, parse_config(facts, source=f"candidate {plain_settings(settings)}"))
        )
    return found


def _put(facts: dict[str, Any], path: list[str], value: Any) -> None:
    *above, last = path
    for name in above:
        facts = facts.setdefault(name, {})
    facts[last] = value


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a ledger records them: numbers by their digits."""
    return {
        key: value if isinstance(value, str | bool | int) else str(value)
        for key, value in settings.items()
    }


class _ExactFloat(float):
    """A TOML float that remembers its digits, so that Decimal fields get them exactly."""

    digits: str

    def __new__(cls, digits: str) -> Self:
        made = super().__new__(cls, digits)
        made.digits = digits
        return made

    def __str__(self) -> str:
        return self.digits


def _exact(digits: str) -> float:
    return _ExactFloat(digits.replace("_", ""))
