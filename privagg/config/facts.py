"""The job that asks what to declare of the tables' columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

from privagg.config.asking import SumsSetup
from privagg.config.data import TableData, UndeclaredData, table_to_ask
from privagg.config.sections import FactsSection, SiteSection
from privagg.config.setup import Setup
from privagg.errors import ConfigError
from privagg.programs.facts.cells import Cells
from privagg.programs.facts.program import Facts
from privagg.training.inspection import Finding

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class FactsSetup(SumsSetup):
    """The columns that `[facts]` asks about; whatever is declared of them already is not used.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    job: ClassVar[str] = "facts"
    command: ClassVar[str] = "ask --for"
    epsilon_key: ClassVar[str] = "facts.epsilon"

    @classmethod
    def of(cls, setup: Setup) -> Self:
        """See `SumsSetup.of`."""
        config = setup.config
        if config.facts is None or not isinstance(config.data, TableData | UndeclaredData):
            return super().of(setup)  # refuses it
        table = table_to_ask(config.data, config.facts.columns)
        return super().of(replace(setup, config=config.model_copy(update={"data": table})))

    @classmethod
    def is_in(cls, setup: Setup) -> bool:
        """See `SumsSetup.is_in`."""
        return setup.config.facts is not None

    def require_there(self) -> None:
        """See `SumsSetup.require_there`."""
        if not self.is_in(self):
            raise ConfigError(
                f"{self.source or 'the configuration'} asks for no facts; write [facts] with its "
                "epsilon and a [[facts.columns]] section for each column, as `privagg init` shows "
                "them"
            )

    @property
    def terms(self) -> FactsSection:
        """What the facts may cost, and of which columns they are."""
        assert self.config.facts is not None  # refused by `of`
        return self.config.facts

    @property
    def epsilon(self) -> Decimal:
        """See `SumsSetup.epsilon`."""
        return self.terms.epsilon

    @cached_property
    def sums(self) -> Facts:
        """See `SumsSetup.sums`."""
        return self.terms.program_over(self.schema)

    def read_lines(self, site: str, table: pd.DataFrame) -> Cells:
        """See `SumsSetup.read_lines`: the columns that are asked about, each cell as it is."""
        return self.sums.cells(table)

    def inspect(self, site: SiteSection) -> list[Finding]:
        """See `Setup.inspect`: nothing is declared that a file could contradict, if it is there."""
        self.all_records_of(site)
        return []
