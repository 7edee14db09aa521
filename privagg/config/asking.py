"""What an asking is made from: the same configuration, asked instead of trained on.

Questions are one opening of sums over the lines of the sites' tables. Nothing is trained, so no
model is built and nothing measured on a public table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cached_property
from typing import ClassVar, Self

from pydantic import ValidationError

from privagg.config.data import TableData
from privagg.config.schema import AskSection
from privagg.config.setup import Setup
from privagg.encoding.contribution import Learner
from privagg.errors import ConfigError, PlanError, validation_faults
from privagg.privacy.calibration import calibrate
from privagg.privacy.plan import SiteTerms, SumsPlan
from privagg.programs.program import Program
from privagg.programs.questions.asking import Asking
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.program import Asked, Questions
from privagg.programs.sums import SumsLearner
from privagg.secure.registry import scheme as find_scheme
from privagg.training.data import Records, read_declared
from privagg.training.rehearsal import RecordsApart
from privagg.training.table import TableSchema


@dataclass(frozen=True, eq=False)
class AskSetup(Setup):
    """The questions of a configuration as a job of their own: plan, approval and charge apart.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    asks: ClassVar[bool] = True
    epsilon_key: ClassVar[str] = "ask.epsilon"

    @classmethod
    def of(cls, setup: Setup) -> Self:
        """The questions of a federation whose training `setup` is.

        Raises:
            ConfigError: its configuration asks none, or records are not in the sites' files.
        """
        if not setup.config.questions:
            raise ConfigError(
                f"{setup.source or 'the configuration'} asks no question; write [ask] with its "
                "epsilon and a [[questions]] section for each, as `privagg init` shows them"
            )
        if setup.given:
            raise ConfigError(
                "questions are asked of the lines of the sites' files, and records were given in "
                "the program instead; name the files in the configuration"
            )
        values = {each.name: getattr(setup, each.name) for each in fields(Setup)}
        return cls(**{**values, "pinned": None})

    @property
    def terms(self) -> AskSection:
        """What the questions may cost, and how wide the intervals are."""
        assert self.config.ask is not None  # asked with [[questions]], never without
        return self.config.ask

    @property
    def schema(self) -> TableSchema:
        """The declared columns."""
        assert isinstance(self.config.data, TableData)
        return self.config.data.table_schema

    @cached_property
    def questions(self) -> Questions:
        """The questions, in one opening."""
        config = self.config
        return Questions(
            Asked(data=self.schema, questions=config.questions, level=self.terms.level)
        )

    @cached_property
    def plan(self) -> SumsPlan:
        """The plan of the opening, its noise calibrated to `ask.epsilon`.

        Raises:
            PlanError: the settings contradict each other.
            CalibrationError: no noise meets the target.
        """
        unit = self._plan(Decimal(1))
        noise = calibrate(
            lambda candidate: unit.with_noise(candidate).total_committed(unit.names[0]),
            epsilon=self.terms.epsilon,
            delta=self.config.privacy.delta,
            accountant=self.accountant,
        )
        return self._plan(noise)

    def _plan(self, noise_multiplier: Decimal) -> SumsPlan:
        privacy, secure = self.config.privacy, self.config.secure
        facts = {
            "sites": [
                SiteTerms(name=site.name, dataset=site.dataset, records=site.records)
                for site in self.config.sites
            ],
            "openings": self.questions.openings(noise_multiplier),
            "delta": privacy.delta,
            "dropouts": privacy.dropouts,
            "colluders": privacy.colluders,
            "custody": secure.custody,
            "scheme": secure.scheme,
            "scheme_protects": find_scheme(secure.scheme).protects,
            "strict": secure.strict,
            "recipe": {
                "federation": self.config.federation.name,
                **self.questions.asked.recipe,
            },
        }
        try:
            return SumsPlan.model_validate(facts)
        except ValidationError as error:
            raise PlanError(validation_faults(error, whole="the plan")) from error

    @property
    def cost(self) -> Decimal:
        """What the questions cost each data set: epsilon at the plan's delta, an upper bound."""
        event = self.plan.total_committed(self.plan.names[0])
        return self.accountant.epsilon(event, self.plan.delta).upper

    def program(self) -> Program:
        """See `Setup.program`."""
        return Asking(self.questions, self.plan, self.cost)

    def learner(self, site: str) -> Learner:
        """See `Setup.learner`; a record is one line of the site's file."""
        path = self.base / self.section(site).data
        records = Columns.read(read_declared(path, self.schema), self.schema)
        return SumsLearner(self.plan, site, self.questions, records)

    def rehearse(self) -> RecordsApart | None:
        """None: there is no model."""
        return None

    @property
    def public_records(self) -> Records | None:
        """None: nothing is measured."""
        return None

    def _references(self) -> tuple[str, ...]:
        return ()
