"""What every plan answers, whatever is asked of the institutions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from pydantic import JsonValue

from privagg.privacy.events import DpEvent
from privagg.privacy.guarantee import Observer
from privagg.privacy.noise import IntegerNoise
from privagg.privacy.plan.compression import Compression
from privagg.privacy.plan.roster import Epoch, SiteTerms
from privagg.privacy.unit import Custody, Unit


class RoundPlan(Protocol):
    """What a plan says of one round: what its sum means, its noise, its event, who sees what.

    Rounds of one job may differ in all of these. Training's do not, so a `TrainingPlan` is the plan
    of each of its rounds.
    """

    # --- who is there, and who may be opened together --------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Sites that take part in the round, in roster order."""

    @property
    def addends(self) -> int:
        """Sites asked: the most contributions of its sum."""

    @property
    def minimum_survivors(self) -> int:
        """Fewer contributions than this stop the round before anything is opened."""

    def is_cohort(self, names: Sequence[str]) -> bool:
        """Whether the round may ask these: `addends` of its sites, in roster order."""

    def is_quorum(self, names: Sequence[str]) -> bool:
        """Whether these may be opened together: in roster order, neither too few nor too many."""

    # --- what it starts from, and what the opened sum means --------------------------------------

    @property
    def dimension(self) -> int:
        """d, float64 values in the public state that a round starts from."""

    @property
    def compression(self) -> Compression | None:
        """Fewer or coarser integers in an upload; None where every coordinate is sent."""

    def divisor(self, survivors: Sequence[str]) -> Fraction:
        """Public number that makes a mean of the sum: the survivors' weights, or their records."""

    def step_per_grid(self, survivors: Sequence[str]) -> Fraction:
        """How far one grid unit of these survivors' sum moves the public state; exact."""

    # --- noise, event and observers --------------------------------------------------------------

    @property
    def noise(self) -> IntegerNoise | None:
        """The integer noise a site adds (a share, or all of it); None where there is none."""

    @property
    def noise_stddev_text(self) -> str:
        """The noise's standard deviation in grid units, all digits, as a decimal; `0` without."""

    def committed_event(self, site: str) -> DpEvent:
        """What one round charges `site`: the least noise that the plan lets be opened."""

    def realised_event(self, site: str, survivors: Sequence[str]) -> DpEvent:
        """What one round did to `site` against users of the result, given who survived.

        Nothing where the site's contribution is not in the opened sum.
        """

    def observers(self, site: str, survivors: int) -> tuple[Observer, ...]:
        """One round as each observer sees it, when `survivors` contributions were opened."""

    @property
    def charge_facts(self) -> dict[str, JsonValue]:
        """What every charge states of the plan, for an auditor to hold against it."""


class Plan(Protocol):
    """What the rest of the house asks of a plan, and no more.

    Sampling, clip, noise, normaliser and event come from one frozen object, so nobody passes a
    noise multiplier and a sensitivity side by side: they ask the plan. Round, site, aggregator,
    key holder, ledger, report and `verify` know no other type; only what trains by gradients asks
    for a `TrainingPlan`. Every answer is a public fact, the same at every party.

    **How an event may evolve.** Ledgers keep events for years and auditors recompute them, so what
    a plan answered once it answers for ever. The meaning of a kind of mechanism never changes, nor
    that of a field; another mechanism is another kind, which accountants refuse until they have a
    proof for it (`UnknownEventError`). A field may be added only with a default under which every
    stored event means what it meant, and `plans.json` among the test vectors stays as it is. Where
    a way to be private needs another event or other assumptions, the plan gets a new `version`:
    plans of the old one are read and verified with their own event, and not run any more.
    """

    # --- which plan, and who is in it ------------------------------------------------------------

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the canonical JSON; every site pins it."""

    @property
    def computation_digest(self) -> str:
        """SHA-256 (hex) over all but how sums are added and opened; public draws hang on it."""

    @property
    def version(self) -> int:
        """Of its kind: what a plan answered once, the same version answers for ever."""

    @property
    def mode(self) -> str:
        """Which kind of plan it is."""

    @property
    def canonical_json(self) -> str:
        """The plan as JSON with sorted keys and no spaces; `load_plan` reads it back."""

    @property
    def sites(self) -> tuple[SiteTerms, ...]:
        """The committed roster, in the order of the contributor bitmap."""

    @property
    def names(self) -> tuple[str, ...]:
        """Site names in roster order."""

    def site(self, name: str) -> SiteTerms:
        """The terms of the site called `name`; PlanError where there is none."""

    # --- rounds, and who is there in which -------------------------------------------------------

    @property
    def rounds(self) -> int:
        """How often a sum is opened, at most."""

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The rounds between two changes of the roster, in order; one where it never changes."""

    def epoch(self, number: int) -> Epoch:
        """The epoch that round `number` is in; PlanError where there is no such round."""

    def rounds_of(self, site: str) -> range:
        """The rounds that a site takes part in; PlanError where there is no such site."""

    @property
    def addends(self) -> int:
        """Most sites asked in any round: the most contributions of one sum."""

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the roster that are named, once each, in roster order."""

    def in_round(self, number: int) -> RoundPlan:
        """What the plan says of round `number`, from 1 to `rounds`."""

    def first_like(self, number: int) -> int:
        """The first round that is planned exactly as round `number` is."""

    # --- whose presence is hidden, and what the job costs ----------------------------------------

    @property
    def unit(self) -> Unit:
        """Whose presence the guarantee hides."""

    @property
    def delta(self) -> Decimal:
        """At which the job's epsilon is stated, in (0, 1)."""

    @property
    def colluders(self) -> int:
        """Sites that may pool what they know without weakening the committed event."""

    def total_committed(self, site: str, rounds: Sequence[int] | None = None) -> DpEvent:
        """Composition of the committed events of these rounds, each as often as it is named.

        The whole job where none are given. Rounds that the site is not in cost it nothing.
        """

    # --- a contribution's shape: of every round, as a scheme's parameters are chosen once ---------

    @property
    def upload_dimension(self) -> int:
        """n, integers in an upload; a round that needs fewer leaves the last ones 0."""

    @property
    def upload_bound(self) -> int:
        """No coordinate of an upload lies beyond +- this; noise and weight included."""

    @property
    def sum_bound(self) -> int:
        """No coordinate of the sum of a full cohort lies beyond +- this; below 2^62."""

    @property
    def sum_tail(self) -> int:
        """No coordinate of any of the job's sums lies beyond +- this, but for 2^-64."""

    @property
    def sensitivity_grid(self) -> int:
        """The most, in L2 and grid units, that a unit of weight 1 moves a sum of any round."""

    @property
    def reach_of_one_site(self) -> int:
        """To +- this, in grid units, one dishonest site can set any coordinate of an opened sum."""

    @property
    def contribution_plainly(self) -> str:
        """What leaves a site, in plain words for a report."""

    # --- how sums are added and opened -----------------------------------------------------------

    @property
    def scheme(self) -> str:
        """Name of the secure aggregation scheme."""

    @property
    def hides(self) -> bool:
        """Whether uploads are encrypted at all."""

    @property
    def custody(self) -> Custody:
        """Who can open the sum."""

    @property
    def custody_plainly(self) -> str:
        """The same in plain words for a report: who has to agree, and who could read uploads."""

    @property
    def strict(self) -> bool:
        """Whether the key holder adds the signed uploads again before it opens."""
