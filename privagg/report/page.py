"""What every form of the report for people shows, in order, with the sentences around it."""

from __future__ import annotations

from dataclasses import dataclass

from privagg.report import roundview, view
from privagg.report.answered import Told, about, asked_names, told_answer
from privagg.report.approvals import approval_text
from privagg.report.figures import count_text, delta_text, epsilon_text, joined, lower_text
from privagg.report.language import say, told
from privagg.report.model import OwnersApproval, Report, SiteReport, TuningSearch
from privagg.report.sentences import kept_apart, table_text, told_summary, told_unprotected
from privagg.report.words import FirstWords, first_words

METHODS = {"composition": "every run is charged in full, and the charges compose"}


@dataclass(frozen=True)
class SearchView:
    """A search over hyperparameters, written.

    Attributes:
        name: the search's.
        sentence: how many runs it had, who recorded it, and how it is accounted for.
        costs: (site, charges, epsilon, proven lower end) for each site that was charged.
        delta: at which the costs are stated; empty without any.
    """

    name: str
    sentence: str
    costs: tuple[tuple[str, str, str, str], ...]
    delta: str


@dataclass(frozen=True)
class AnswerView:
    """A question and its figures, written.

    Attributes:
        name: the question's.
        about: what it asks.
        told: what its figures say.
    """

    name: str
    about: str
    told: Told


@dataclass(frozen=True)
class Page:
    """A report arranged for reading. Texts are plain; nothing in them is markup.

    Attributes:
        report: what is arranged.
        banners: (headline, text) of what a reader must know first.
        bars: every site's spending against its budget.
        summary_bars: those of the sites that are plotted, for page 1.
        plotted: the sites that get a plot of their own.
        words: which epsilon applies when, and what the terms mean.
        headline: (who, epsilon, factor on odds, remark) against each kind of observer.
        headline_delta: at which those figures hold.
        totals: (what, over the run, mean of a round) of time and traffic.
        comparisons: the accountants side by side.
        matrices: the observer matrices, one for each group of sites that share one.
        plan: (label, value) of the plan's settings.
        rounds: a row for each attempt at a round.
        measures: names of the metrics that the rows show.
        classes: (class, public records, recall of the released model) where they are recorded.
        searches: the searches over hyperparameters.
        answers: the questions and their figures; empty of a report on training.
    """

    report: Report
    banners: tuple[tuple[str, str], ...]
    bars: tuple[view.BudgetBar, ...]
    summary_bars: tuple[view.BudgetBar, ...]
    plotted: tuple[SiteReport, ...]
    words: FirstWords
    headline: tuple[tuple[str, str, str, str], ...]
    headline_delta: str
    totals: tuple[tuple[str, str, str], ...]
    comparisons: tuple[view.ComparisonGroup, ...]
    matrices: tuple[view.Matrix, ...]
    plan: tuple[tuple[str, str], ...]
    rounds: tuple[roundview.RoundRow, ...]
    measures: tuple[str, ...]
    classes: tuple[tuple[str, str, str], ...]
    searches: tuple[SearchView, ...]
    answers: tuple[AnswerView, ...]

    @property
    def title(self) -> str:
        """The report in a line."""
        report = self.report
        return say(
            "Privacy report: {federation}, run {run}", federation=report.federation, run=report.run
        )

    @property
    def made(self) -> str:
        """When the report was made."""
        time = self.report.generated
        return say(
            "{day} {month} {year}, {time} UTC",
            day=time.day,
            month=say(time.strftime("%B")),
            year=time.year,
            time=time.strftime("%H:%M"),
        )

    @property
    def weakest_text(self) -> str:
        """Says which figures the first table holds."""
        if not self.headline_delta:
            return say("The weakest figure of any site, for what was really done.")
        return say(
            "The weakest figure of any site, for what was really done, at δ = {delta}.",
            delta=self.headline_delta,
        )

    @property
    def public_table(self) -> str:
        """The public table's name in a sentence."""
        table = self.report.public_table
        return table.name if table else say("the public table")

    @property
    def summary(self) -> tuple[str, ...]:
        """The summary's sentences."""
        return told_summary(self.report)

    @property
    def unprotected(self) -> tuple[str, ...]:
        """What the run did not protect."""
        return told_unprotected(self.report)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the guarantees rest on."""
        return tuple(map(told, self.report.assumptions))

    @property
    def any_before(self) -> bool:
        """True where some site had spent before this run."""
        return any(bar.before_share > 0 for bar in self.bars)

    @property
    def any_infinite(self) -> bool:
        """True where some figure promises nothing."""
        return any(bar.infinite for bar in self.bars) or any(c.infinite for c in self._cells)

    @property
    def any_over(self) -> bool:
        """True where some observer's figure lies above a budget."""
        return any(c.over for c in self._cells)

    @property
    def _cells(self) -> list[view.Cell]:
        return [c for m in self.matrices for row in m.rows for c in row.cells if c is not None]

    @property
    def spending_text(self) -> str:
        """Says how the plots of spending are to be read."""
        text = say(
            "A round is charged before anybody trains, for the least noise that the plan allows "
            "to be opened. A stopped round stays charged; it is marked with a cross. ε is the "
            "total over everything ever charged to the data set."
        )
        unplotted = len(self.report.sites) - len(self.plotted)
        if not unplotted:
            return text
        more = say(
            "Shown are the sites closest to their budgets; {n} more stand in the table of ledgers.",
            n=unplotted,
        )
        return say(" ").join((text, more))

    @property
    def quality_text(self) -> str:
        """Says on which records the model was measured, or why it was not."""
        if self.report.public_table is None:
            return say(
                "No table was declared public, so no quality is reported: a figure measured on "
                "private records would itself have to be charged."
            )
        return say(
            "Measured on the table {table}, which was declared public. Nothing was measured on "
            "the institutions' own records.",
            table=table_text(self.report.public_table),
        )

    @property
    def asked(self) -> bool:
        """Whether the report is on questions, and so on no model."""
        return bool(asked_names(self.report))

    @property
    def answers_text(self) -> str:
        """Says how the answers are to be read, or why there are none."""
        if self.report.answers is None:
            return say("No sum was opened, so nothing was answered.")
        return say(
            "Every figure follows from opened sums with noise. The interval for these records "
            "allows for the noise, whose size is known exactly; the interval for the population "
            "allows for sampling too. Both are at {level}.",
            level=f"{100 * self.report.answers.level:g} %",
        )

    @property
    def cost_text(self) -> str:
        """Says which times are known."""
        return say(
            "Time that encrypting or masking, adding and opening took, as the coordinator "
            "recorded it. How long training took is not recorded, because it depends on private "
            "records."
        )

    @property
    def number_text(self) -> str:
        """Says what the accountants' figures mean."""
        return say(
            "The total charged in this run, by each accountant. A proven figure is an interval "
            "that certainly holds the true ε; the others are computed in floating point and may "
            "fall on either side."
        )

    @property
    def observers_text(self) -> str:
        """Says how the observer matrix is to be read."""
        texts = [
            say(
                "Each figure is the ε, for what was really done in this run, against one observer "
                "who may pool what it knows with k other sites: they know their own noise and "
                "subtract it. The darker a field, the more can be learned. Numbers in superscript "
                "are the assumptions a figure needs."
            )
        ]
        if self.any_over:
            texts.append(
                say(
                    "▲ marks a figure above the site's budget: the guarantee against that observer "
                    "is weaker than what the budget was charged with."
                )
            )
        if self.any_infinite:
            texts.append(say("∞ means that nothing is guaranteed."))
        return say(" ").join(texts)

    @property
    def assumptions_text(self) -> str:
        """Says what the assumptions are for."""
        text = say(
            "A guarantee holds where its assumptions do. privagg cannot prove any of these; they "
            "have to be judged."
        )
        if self.asked:
            return text
        return say(" ").join((text, *kept_apart(self.report.sites)))

    @property
    def rests_on(self) -> tuple[str, ...]:
        """The assumptions as sentences; the matrix says which figure needs which."""
        return tuple(
            say("{assumption}.", assumption=f"{text[:1].upper()}{text[1:]}")
            for text in self.assumptions
        )

    @property
    def words_of(self) -> tuple[str, ...]:
        """Which of the report's facts its bundle can prove, and whose word the others are."""
        table = self.report.public_table
        coordinator = (
            say(
                "The coordinator's word: what was measured on “{table}”; absences, sizes, times, "
                "versions.",
                table=table.name,
            )
            if table
            else say("The coordinator's word: absences, sizes, times, versions.")
        )
        return (
            say(
                "The bundle can prove: whole and signed ledgers, budgets, every ε, charges as "
                "planned, the run's key with its parameters, and who signed which upload and "
                "opening."
            ),
            coordinator,
            say(
                "Each site's word: that it trained, clipped and added noise as it charged, and "
                "that its owner approved."
            ),
        )

    @property
    def check_text(self) -> str:
        """Says what a reader can do to be sure of the figures."""
        return say(
            "This page is only as good as the ledgers it follows from. With the bundle that "
            "belongs to it, “privagg verify bundle.privagg.zip” gives each claim a verdict on any "
            "computer, without the data: proved, attested by a name, contradicted, or not decided. "
            "Whether a ledger's history was cut or rewritten shows against a checkpoint that "
            "another party kept (“privagg ledger kept”); whose the keys are, against keys you got "
            "elsewhere."
        )

    @property
    def tuning_text(self) -> str:
        """Says what the ledgers record about searches over hyperparameters."""
        if not self.searches:
            return say(
                "The ledgers record no search over hyperparameters. Settings that were chosen by "
                "looking at private records without a charge would not show here."
            )
        return say(
            "Trying settings on private records is itself a release, so every run of a search is "
            "charged in full. That this covers the choice among them rests on choosing by charged "
            "results or by public data only."
        )

    @property
    def ledgers_text(self) -> str:
        """Says what the checkpoints are good for."""
        return say(
            "Every figure above follows from these ledgers. A signed checkpoint fixes a ledger's "
            "whole history up to that entry: whoever keeps one can tell later whether anything "
            "before it was changed."
        )

    @property
    def approvals(self) -> tuple[tuple[str, str, str, str, str], ...]:
        """Owners' approvals: site, person, for whom or what, last day, and the key that signed."""
        return tuple(
            (
                site.name,
                approval.who,
                approval.why,
                approval.until,
                _owners_key(approval),
            )
            for site in self.report.sites
            for approval in site.approvals
        )

    @property
    def approvals_text(self) -> str:
        """Says what an approval is, and who gave these."""
        given = approval_text(self.report.sites)
        if not given:
            return say("No ledger records that an owner approved this use of its data.")
        about = say(
            "A site takes part in what the owner of its data approved, and in nothing else; the "
            "act is signed with a key of the owner's own. That the key is the owner's is the "
            "site's word."
        )
        return say(" ").join((about, given))

    @property
    def statements_text(self) -> str:
        """Introduces the statements, or says that there are none."""
        if not self.report.attestations:
            return say("Nobody made a statement in the configuration.")
        return say(
            "Repeated here as they were given in the configuration; privagg has not checked them."
        )


def arranged(report: Report) -> Page:
    """The report, arranged for reading."""
    bars = view.budget_bars(report)
    plotted = view.closest_to_budget(report)
    shown = {site.name for site in plotted}
    return Page(
        report=report,
        banners=_banners(report),
        bars=bars,
        summary_bars=tuple(bar for bar in bars if bar.site in shown),
        plotted=plotted,
        words=first_words(report),
        headline=view.headline_rows(report),
        headline_delta=delta_text(report.sites[0].committed.delta) if report.sites else "",
        totals=roundview.total_rows(report),
        comparisons=view.comparisons(report),
        matrices=view.matrices(report),
        plan=view.plan_rows(report),
        rounds=roundview.round_rows(report),
        measures=roundview.metric_names(report),
        classes=roundview.class_rows(report),
        searches=tuple(_search(report, search) for search in report.tuning),
        answers=_answers(report),
    )


def _owners_key(approval: OwnersApproval) -> str:
    sentences = {
        (True, False): "{key}",
        (False, False): "{key}, which also serves",
        (True, True): "{key}, in place of a lost key",
        (False, True): "{key}, which also serves, in place of a lost key",
    }
    return say(sentences[approval.own_key, approval.for_lost_key], key=approval.owner_key[:16])


def _banners(report: Report) -> tuple[tuple[str, str], ...]:
    found = []
    if not report.scheme.protects:
        about = say(
            "The scheme {scheme} is for tests and comparisons: whoever adds the contributions can "
            "read each of them.",
            scheme=report.scheme.name,
        )
        found.append((say("Nothing was encrypted."), about))
    if any(site.epsilon_after_run.is_infinite() for site in report.sites):
        about = say(
            "At least one round was run without noise, or with a generator made for tests: ε is "
            "infinite."
        )
        found.append((say("No guarantee."), about))
    if report.outcome != "finished":
        head = say("The run is {outcome}.", outcome=say(report.outcome))
        found.append((head, told(report.reason or "") or say("The ledger gives no reason.")))
    return tuple(found)


def _answers(report: Report) -> tuple[AnswerView, ...]:
    found = report.answers
    if found is None:
        return ()
    return tuple(
        AnswerView(
            name=told(str(answer.question.get("name", ""))),
            about=about(answer.question),
            told=told_answer(answer.figures, found.level),
        )
        for answer in found.answers
    )


def _search(report: Report, search: TuningSearch) -> SearchView:
    return SearchView(
        name=search.name,
        sentence=say(
            "{runs} ({names}; {among}), recorded by {who} in the ledger of {ledgers}. Accounted "
            "for by {method}: {meaning}.",
            runs=count_text(len(search.runs), "run"),
            names=joined(list(search.runs)),
            among=say("this run is one of them")
            if report.run in search.runs
            else say("this run is not among them"),
            who=search.who,
            ledgers=joined(list(search.recorded_in)),
            method=search.method,
            meaning=say(METHODS[search.method]),
        ),
        costs=tuple(
            (
                cost.site,
                count_text(cost.charges, "charge"),
                epsilon_text(cost.epsilon),
                lower_text(cost.epsilon_lower, 9) if cost.epsilon_lower is not None else "",
            )
            for cost in search.costs
        ),
        delta=delta_text(search.costs[0].delta) if search.costs else "",
    )
