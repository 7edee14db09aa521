"""A whole configuration file: its sections, and the public facts that follow from them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import Field

from privagg.config.data import DataSection, Section, TableData
from privagg.config.private import PrivateEvaluationSection
from privagg.config.sections import (
    AnyEvaluation,
    AskSection,
    AttestationSection,
    CompressionSection,
    EvaluationSection,
    FactsSection,
    FederationSection,
    PrivacySection,
    SecureSection,
    SiteSection,
    TrainingSection,
    TuningSection,
)
from privagg.programs.choosing import Choice
from privagg.programs.evaluation import Evaluated, OpenedModel, Schedule
from privagg.programs.questions.asked import AnyQuestion
from privagg.training.heldout import HeldOut


class Whole(Section):
    """Every section of a file, each right by itself; `Config` checks the rest.

    Args:
        federation: names and the output folder.
        privacy: what is protected, how, and within which budget.
        training: rounds, model and optimiser.
        secure: the aggregation scheme and who can open.
        compression: how uploads are made smaller; not at all by default.
        data: what the sites' records are.
        sites: at least one, each with its own name.
        evaluation: the table declared public, or the held-out records; none by default.
        tuning: a search over settings; none by default.
        ask: what questions may cost; none are asked by default.
        questions: what is asked of the sites' tables, all in one opening.
        facts: columns of which it is asked what to declare; none by default.
        attestations: statements of named people, repeated in reports.
    """

    federation: FederationSection
    privacy: PrivacySection
    training: TrainingSection
    secure: SecureSection
    compression: CompressionSection | None = None
    data: DataSection
    sites: tuple[SiteSection, ...] = Field(min_length=1)
    evaluation: AnyEvaluation | None = None
    tuning: TuningSection | None = None
    ask: AskSection | None = None
    questions: tuple[AnyQuestion, ...] = ()
    facts: FactsSection | None = None
    attestations: tuple[AttestationSection, ...] = ()

    @property
    def public_table(self) -> EvaluationSection | None:
        """The table declared public, if there is one."""
        return self.evaluation if isinstance(self.evaluation, EvaluationSection) else None

    @property
    def private_evaluation(self) -> PrivateEvaluationSection | None:
        """The evaluation on held-out records, if there is one."""
        return self.evaluation if isinstance(self.evaluation, PrivateEvaluationSection) else None

    @property
    def training_epsilon(self) -> Decimal:
        """What training may cost each data set: `privacy.epsilon` without evaluations' shares."""
        private = self.private_evaluation
        return self.privacy.epsilon * (1 - private.shares) if private else self.privacy.epsilon

    @property
    def schedule(self) -> Schedule | None:
        """When the model is evaluated between the rounds; None where it is not."""
        private, rounds = self.private_evaluation, self.training.rounds
        if private is None or private.rounds is None or rounds is None:
            return None
        terms = private.rounds.model_dump(exclude={"epsilon", "share"})
        return Schedule(rounds=rounds, **terms)

    @property
    def choice(self) -> Choice | None:
        """What `[ask] program = "auto"` comes to; None where it is not written.

        Raises:
            ValueError, ConfigError: the settings of `[ask]` are not a scorecard's.
        """
        if self.ask is None or not isinstance(self.data, TableData):
            return None
        records, delta = self.declared_records, self.privacy.delta
        return self.ask.choice(self.data.table_schema, records, delta)

    @property
    def trains(self) -> bool:
        """Whether `auto` leaves the table to training, so that nothing is asked."""
        found = self.choice
        return found is not None and found.program is None

    @property
    def held_out(self) -> HeldOut | None:
        """Which records are left out of training for it."""
        private = self.private_evaluation
        if private is None:
            return None
        return HeldOut(share=private.held_out, key=private.key or self.federation.name)

    @property
    def declared_records(self) -> int:
        """Of all sites together."""
        return sum(site.records for site in self.sites)

    @property
    def staying(self) -> tuple[SiteSection, ...]:
        """The sites that do not leave: those that jobs beside training ask."""
        return tuple(site for site in self.sites if site.last_round is None)

    def evaluated(self, model: OpenedModel) -> Evaluated:
        """What the private evaluation is of, for a configuration that has one.

        Args:
            model: the evaluated one.
        """
        private = self.private_evaluation
        assert private is not None  # whoever asks has looked
        return self._evaluated(
            model,
            sites=tuple(site.name for site in self.staying) if private.by_site else (),
            subgroups=private.subgroups,
            bins=private.bins,
            noise="gaussian" if private.noise == "auto" else private.noise,
        )

    def evaluated_rounds(self, model: OpenedModel) -> Evaluated:
        """What is evaluated between the training's rounds, for a configuration that does so.

        Args:
            model: the trained one, without digests.
        """
        return self._evaluated(model, schedule=self.schedule)

    def _evaluated(self, model: OpenedModel, **more: Any) -> Evaluated:
        private, rule = self.private_evaluation, self.held_out
        assert private is not None  # whoever asks has looked
        assert rule is not None
        assert isinstance(self.data, TableData)
        return Evaluated(
            data=self.data.table_schema,
            model=model,
            held_out=rule,
            threshold=private.threshold,
            level=private.level,
            **more,
        )
