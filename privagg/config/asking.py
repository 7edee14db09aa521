"""Jobs that open sums over the lines of the sites' tables: the configuration's questions first.

Such a job is a `AnsweringProgram` with its own plan, approval and charge. Nothing is trained, so no
model is built and nothing measured on a public table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import ValidationError

from privagg.config.data import TableData
from privagg.config.sections import AskSection, SiteSection
from privagg.config.setup import Setup
from privagg.encoding.contribution import Learner
from privagg.encoding.vectors import FloatVector
from privagg.errors import (
    CalibrationError,
    ConfigError,
    NoiseError,
    PlanError,
    validation_faults,
)
from privagg.privacy.calibration import RESOLUTION, calibrate
from privagg.privacy.plan import SiteTerms, SumsPlan
from privagg.programs.answering import Answering
from privagg.programs.evaluation import Evaluation
from privagg.programs.program import Program
from privagg.programs.questions.columns import Columns
from privagg.programs.questions.program import Questions
from privagg.programs.rehearsal import made_up, require_computable
from privagg.programs.shards import learner_of
from privagg.programs.sums_program import AnsweringProgram, openings_of
from privagg.secure.registry import scheme as find_scheme
from privagg.training.data import Records, TensorRecords
from privagg.training.declared import TableSource
from privagg.training.reading import declared, declared_parts
from privagg.training.table import TableSchema

if TYPE_CHECKING:
    import pandas as pd


Noisy = TypeVar("Noisy", Questions, Evaluation)
"""A program that can have either kind of noise."""


@dataclass(frozen=True, eq=False)
class SumsSetup(Setup):
    """A job of sums over records, from the configuration of a federation.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    @classmethod
    def of(cls, setup: Setup) -> Self:
        """The job of a federation whose training `setup` is.

        Raises:
            ConfigError: its configuration has no such job, or records are not in the sites' files.
        """
        if setup.given:
            raise ConfigError(
                f"{cls.job}: sums are over the lines of the sites' files, and records were given "
                "in the program instead; name the files in the configuration"
            )
        values = {each.name: getattr(setup, each.name) for each in fields(Setup)}
        made = cls(**{**values, "pinned": None})
        made.require_there()
        return made

    @classmethod
    @abstractmethod
    def is_in(cls, setup: Setup) -> bool:
        """Whether a configuration has this job."""

    @abstractmethod
    def require_there(self) -> None:
        """Refuse a configuration without this job.

        Raises:
            ConfigError: what to write to have it.
        """

    @property
    @abstractmethod
    def epsilon(self) -> Decimal:
        """What the job may cost each data set."""

    @property
    @abstractmethod
    def sums(self) -> AnsweringProgram:
        """What is opened, and what follows from it."""

    @property
    def schema(self) -> TableSchema:
        """The declared columns."""
        assert isinstance(self.config.data, TableData)
        return self.config.data.table_schema

    @cached_property
    def plan(self) -> SumsPlan:
        """The plan of the openings, their noise calibrated to `epsilon`.

        Raises:
            PlanError: the settings contradict each other.
            CalibrationError: no noise meets the target.
        """
        return self.planned(self.sums)

    def planned(self, sums: AnsweringProgram) -> SumsPlan:
        """The plan of a program, its noise calibrated to `epsilon`.

        Args:
            sums: the program.

        Raises:
            PlanError, CalibrationError: as `plan`.
            NoiseError: integer Laplace noise that no table holds.
        """
        unit = self._plan(sums)
        if all(opening.moves for opening in unit.openings):
            # The largest loss is 1 / multiplier, which for few cells no delta makes much smaller.
            least = (1 / self.epsilon).quantize(RESOLUTION, rounding=ROUND_CEILING)
            plan = unit.with_noise(least)
            if self._cost(plan) <= self.epsilon:
                return plan
        # Calibrated once, by whoever approves or asks first.
        asked = (unit.digest, self.epsilon, self.accountant)
        if asked not in self._noises:
            self._noises[asked] = calibrate(
                lambda candidate: unit.with_noise(candidate).total_committed(unit.names[0]),
                epsilon=self.epsilon,
                delta=self.config.privacy.delta,
                accountant=self.accountant,
            )
        return unit.with_noise(self._noises[asked])

    def quieter(self, usual: Noisy, other: Callable[[], Noisy]) -> tuple[Noisy, SumsPlan]:
        """Of one program under two kinds of noise the one that leaves less in any cell, by public
        facts alone; with its plan.

        Args:
            usual: with Gaussian noise.
            other: makes the same with integer Laplace noise, of which there may be no table, or
                which moves more integers than a plan may.

        Raises:
            PlanError, CalibrationError, NoiseError: as `planned` of the usual one.
        """
        plan = self.planned(usual)
        with suppress(NoiseError, CalibrationError, PlanError):
            changed = other()
            less = self.planned(changed)
            if changed.largest_stddev(less) < usual.largest_stddev(plan):
                return changed, less
        return usual, plan

    def _plan(self, sums: AnsweringProgram) -> SumsPlan:
        """With a noise multiplier of 1."""
        privacy, secure = self.config.privacy, self.config.secure
        sums.require_sites([site.name for site in self.config.staying])
        facts = {
            "sites": [
                SiteTerms(name=site.name, dataset=site.dataset, records=site.records)
                for site in self.config.staying
            ],
            "delta": privacy.delta,
            "dropouts": privacy.dropouts,
            "colluders": privacy.colluders,
            "custody": secure.custody,
            "scheme": secure.scheme,
            "scheme_protects": find_scheme(secure.scheme).protects,
            "strict": secure.strict,
            "recipe": {
                "federation": self.config.federation.name,
                **sums.recipe,
            },
        }
        try:
            openings = openings_of(sums, Decimal(1))
            return SumsPlan.model_validate({**facts, "openings": openings})
        except ValidationError as error:
            raise PlanError(validation_faults(error, whole="the plan")) from error

    @property
    def cost(self) -> Decimal:
        """What the job costs each data set: epsilon at the plan's delta, an upper bound."""
        return self._cost(self.plan)

    def _cost(self, plan: SumsPlan) -> Decimal:
        event = plan.total_committed(plan.names[0])
        return self.accountant.epsilon(event, plan.delta).upper

    def program(self) -> Program:
        """See `Setup.program`."""
        return Answering(self.sums, self.plan, self.cost)

    def learner(self, site: str) -> Learner:
        """See `Setup.learner`; a record is one line of the site's file."""
        return learner_of(self.plan, site, self.sums, self.lines_of(site))

    def lines_of(self, site: str) -> Any:
        """What the program is asked of at a site; read once, as training's records are.

        Args:
            site: its name in the plan.

        Raises:
            ConfigError, DataError: the table cannot be read as declared.
        """
        place = (self.job, site)
        if place not in self._lines:
            self._lines[place] = self.read_lines(site, self.table_of(site))
        return self._lines[place]

    def read_lines(self, site: str, table: pd.DataFrame) -> Any:
        """What of a table the program is asked of; by default the declared columns of every line.

        Args:
            site: its name in the plan.
            table: the site's, with all declared columns.

        Raises:
            DataError: it cannot be read as declared.
        """
        return Columns.read(table, self.schema)

    def table_of(self, site: str) -> pd.DataFrame:
        """A site's table, with all declared columns.

        Raises:
            ConfigError, DataError: it cannot be read as declared.
        """
        section = self.section(site)
        source = self.source_of(section)
        assert isinstance(source, TableSource)  # what is asked is asked of tables alone
        return declared(source, self.base / section.data)

    def require_state(self, number: int, state: FloatVector) -> None:
        """See `Setup.require_state`; the program says which."""
        self.sums.require_state(number, state)

    def rehearse(self) -> None:
        """See `Setup.rehearse`: there is no model."""

    def kept_apart(self, site: str) -> None:
        """None, as there is no model; what cannot be computed is refused as in `rehearse`."""
        self.rehearse()

    @property
    def public_records(self) -> Records | None:
        """None: nothing is measured."""
        return None

    def _references(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class AskSetup(SumsSetup):
    """The questions of a configuration, or the program that its `[ask]` names.

    Args:
        config, base, source, accountant, pinned, allowed, given, given_public: as for `Setup`.
    """

    job: ClassVar[str] = "questions"
    command: ClassVar[str] = "ask"
    epsilon_key: ClassVar[str] = "ask.epsilon"

    @classmethod
    def is_in(cls, setup: Setup) -> bool:
        """See `SumsSetup.is_in`."""
        return setup.config.ask is not None and not setup.config.trains

    def require_there(self) -> None:
        """See `SumsSetup.require_there`."""
        if (found := self.config.choice) is not None and found.program is None:
            raise ConfigError(
                f"nothing is asked with ask.program = 'auto': {found.reason}. Train it: `privagg "
                "run`, with the settings that [training] leaves out proposed; or name a program"
            )
        if not self.is_in(self):
            raise ConfigError(
                f"{self.source or 'the configuration'} asks no question; write [ask] with its "
                "epsilon and a [[questions]] section for each, as `privagg init` shows them"
            )

    @property
    def terms(self) -> AskSection:
        """What the questions may cost, and how wide the intervals are."""
        assert self.config.ask is not None  # refused by `of`
        return self.config.ask

    @property
    def epsilon(self) -> Decimal:
        """See `SumsSetup.epsilon`."""
        return self.terms.epsilon

    @property
    def sums(self) -> AnsweringProgram:
        """See `SumsSetup.sums`."""
        return self._chosen[0]

    @property
    def plan(self) -> SumsPlan:
        """See `SumsSetup.plan`; of two kinds of noise the one that leaves less uncertain answers.

        Compared are the least exact answers, by public facts alone.
        """
        return self._chosen[1]

    def rehearse(self) -> None:
        """Refuse a program that fails on made-up records, whoever wrote it; there is no model.

        Once for a plan: program and made-up records are the same whoever asks.

        Raises:
            ConfigError: in which round, and how. Nothing is charged for it.
        """
        if self.plan.digest not in self._rehearsed:
            require_computable(self.sums, self.plan, made_up(self.schema))
            self._rehearsed.add(self.plan.digest)

    def all_records_of(self, site: SiteSection) -> Records:
        """See `Setup.all_records_of`; of a table that is read in one part, its lines as well."""
        if site.name not in self._read:
            source = self.source_of(site)
            assert isinstance(source, TableSource)  # as for `table_of`
            parts = declared_parts(source, self.base / site.data)
            table = next(parts)
            if next(parts, None) is not None:
                return super().all_records_of(site)
            self._read[site.name] = TensorRecords.of(*self.schema.encode(table))
            self._lines[self.job, site.name] = self.read_lines(site.name, table)
        return self._read[site.name]

    @cached_property
    def _chosen(self) -> tuple[AnsweringProgram, SumsPlan]:
        terms, questions = self.terms, self.config.questions
        facts = (self.schema, questions, self.config.declared_records, self.config.privacy.delta)
        usual = terms.program_over(*facts)
        if terms.noise != "auto" or not isinstance(usual, Questions):
            return usual, self.planned(usual)
        if not all(question.ones for question in questions):
            return usual, self.planned(usual)
        other = terms.program_over(*facts, "laplace")
        assert isinstance(other, Questions)  # the same program
        return self.quieter(usual, lambda: other)
