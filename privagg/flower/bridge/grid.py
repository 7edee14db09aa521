"""The server's door: Flower's own strategies get what a round opened, and nothing else.

    strategy.start(PrivateGrid(grid, ...), initial_arrays, num_rounds=...)

A strategy hands its training messages to the Grid and gets replies to average. `PrivateGrid` runs
one round of privagg in between and hands over *one* reply: the model it sent plus the opened mean
update, weighted by the contributors' total public weight. A weighted average of one reply is that
reply, so FedAvg gets the opened mean as it is, and FedAdam, FedYogi, FedAdagrad, FedAvgM, FedProx
take their own step from it. A site that gave nothing stands as a reply with an error.

Strategies that compare single updates (Krum, MultiKrum, Bulyan, FedMedian, FedTrimmedAvg, QFedAvg)
cannot work on sums that nobody can take apart: they would see the one mean. Flower's own wrappers
for differential privacy would add noise that no ledger knows of, and protect nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from logging import INFO
from typing import Any, Literal, Protocol

from flwr.app import ArrayRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore import log
from flwr.supercore.run import Run
from numpy.typing import NDArray
from pydantic import JsonValue

from privagg.encoding.vectors import FloatVector
from privagg.errors import CohortError, ConfigError, EncodingError
from privagg.flower.bridge.arrays import TrainRequest, named_values
from privagg.flower.bridge.transport import FlowerTransport
from privagg.protocol.cohorts import draws_cohorts
from privagg.protocol.job import Job, RoundOutcome

Release = Callable[[Mapping[str, NDArray[Any]]], None]


class RoundSource(Protocol):
    """What runs a round, or knows how it ended; see `privagg.run.replay.ReplayedRounds`."""

    def __call__(
        self,
        number: int,
        parameters: FloatVector,
        *,
        settings: Mapping[str, JsonValue],
        cohort: tuple[str, ...],
    ) -> RoundOutcome:
        """How round `number` ended, from this model, with its update where it was opened."""
        ...


class PrivateGrid(Grid):
    """A Grid whose training rounds are privagg's.

    Args:
        grid: Flower's own.
        job: what the coordinator of the run holds.
        transport: carries frames to the job's parties over the same Grid, and knows their nodes.
        rounds: runs the rounds.
        weighted_by_key: under which the strategy looks for a reply's weight.
        evaluation: `public` passes evaluation messages on, for apps that declare that they read
            public data only; else they are dropped, and the strategy has no figures of clients.
        release: takes the final model, its arrays by name; None where nothing records it.

    Attributes:
        outcomes: how every round ended, in summary, those of a resumed run included.
    """

    def __init__(
        self,
        grid: Grid,
        job: Job,
        transport: FlowerTransport,
        rounds: RoundSource,
        *,
        weighted_by_key: str = "num-examples",
        evaluation: Literal["dropped", "public"] = "dropped",
        release: Release | None = None,
    ) -> None:
        if len(job.plan.epochs) > 1:
            raise ConfigError(
                "sites join or leave between rounds, and a strategy would choose among all of "
                "them: have privagg coordinate (privagg deploy), or leave first_round and "
                "last_round out. Nothing was spent"
            )
        self._grid, self._job, self._transport = grid, job, transport
        self._rounds, self._release = rounds, release
        self._weighted_by_key = weighted_by_key
        self._evaluation = evaluation
        self._met = False
        self.outcomes: list[RoundOutcome] = []

    # --- Flower's interface -----------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """See `Grid.set_run`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """See `Grid.run`."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid.create_message`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The sites' nodes that are there; other parties' nodes are not for a strategy to ask.

        Where a party's node is not known yet, every unknown node is asked to prove who it is.

        Raises:
            CohortError: a site cannot take part in the whole job; nothing was spent.
        """
        return list(self._sites())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refused: a round is more than its messages.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a PrivateGrid runs whole rounds; use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refused, as `push_messages`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a PrivateGrid runs whole rounds; use send_and_receive")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Training messages become one round; evaluation messages pass where they may.

        Returns:
            For training, one reply with the opened mean (none where the round stopped) and an
            error for every site that gave nothing. How long a round waits is the transport's
            `Patience`; `timeout` counts for evaluation alone.

        Raises:
            ConfigError: messages that make no round of this plan; nothing was sent.
            EncodingError: a model that cannot be averaged; nothing was sent.
        """
        asked = list(messages)
        kinds = {message.metadata.message_type for message in asked}
        if not asked:
            return []
        if kinds == {MessageType.EVALUATE}:
            return self._evaluate(asked, timeout)
        if kinds != {MessageType.TRAIN}:
            raise ConfigError(
                f"messages of type {', '.join(sorted(kinds))}; a PrivateGrid carries 'train', and "
                "'evaluate' where data are declared public"
            )
        return self._train(asked)

    # --- one round --------------------------------------------------------------------------------

    def _train(self, messages: Sequence[Message]) -> list[Message]:
        plan, number = self._job.plan, len(self.outcomes) + 1
        if number > plan.rounds:
            raise ConfigError(
                f"the strategy asks for round {number}; the plan, and every site's budget, has "
                f"{plan.rounds}"
            )
        request, planned = _one_request(messages), plan.in_round(number)
        if request.layout.dimension != planned.dimension:
            raise ConfigError(
                f"the strategy's model has {request.layout.dimension} values, the plan "
                f"{planned.dimension}; agree on a plan for this model"
            )
        arrays = messages[0].content.array_records[request.arrays_key]
        parameters = request.layout.vector(arrays)
        sites = self._sites(again=False)
        to = {self._site(sites, message): message for message in messages}
        outcome = self._rounds(
            number,
            parameters,
            settings=request.settings(),
            cohort=self._cohort(to, sites.values()),
        )
        self.outcomes.append(outcome.summary())
        replies = [
            Message(Error(ErrorCode.UNKNOWN, reason), reply_to=to[site])
            for site, reason in outcome.refusals.items()
            if site in to and site not in outcome.survivors
        ]
        if outcome.update is None:
            return replies
        moved = request.layout.arrays(parameters + outcome.update)
        facts = MetricRecord(
            {
                self._weighted_by_key: float(planned.divisor(outcome.survivors)),
                "contributors": len(outcome.survivors),
            }
        )
        content = RecordDict({request.arrays_key: moved, "metrics": facts})
        # A strategy that draws its clients may ask others in a round that is told it again.
        first = next((to[site] for site in outcome.survivors if site in to), messages[0])
        return [Message(content, reply_to=first), *replies]

    def release(self, arrays: ArrayRecord) -> None:
        """Write down which model this run is released with: its file, and its digest in the record.

        Report and bundle name it then, and `verify` compares the file. A strategy's last step is
        its own, so only whoever started it can say what it ended with.

        Args:
            arrays: the final model, usually `result.arrays`.

        Raises:
            ConfigError: there is no array in it; no round was opened; or nothing records it here.
            EncodingError: an array's bytes are not what its description says.
        """
        if self._release is None:
            raise ConfigError("this Grid records no model; open it with private_grid()")
        if not arrays or not any(outcome.outcome == "opened" for outcome in self.outcomes):
            raise ConfigError("no round was opened, so there is no model to release")
        self._release(named_values(arrays))

    def _sites(self, *, again: bool = True) -> dict[int, str]:
        """Node -> site, for the nodes that are there; see `get_node_ids`.

        Args:
            again: look for parties that are away although they were looked for before.
        """
        if again or not self._met:
            self._meet()
        alive, found = set(self._grid.get_node_ids()), self._transport.directory.nodes
        return {found[n]: n for n in self._job.plan.names if found.get(n) in alive}

    def _meet(self) -> None:
        """Find out where everybody is, and whether they can take part in the whole job."""
        parties = {*self._job.plan.names, self._job.opener} - {self._job.identity.name}
        directory = self._transport.directory
        away = not parties <= directory.nodes.keys()
        if away:
            self._transport.meet(sorted(parties))
        if away or not self._met:  # whoever was met when the run's key was asked for said it then
            for name, said in directory.presences.items():
                self._job.watch.record_kept_sizes(
                    name, said.kept_sizes
                )  # saves the first round its roll call
        for name, presence in directory.presences.items():
            if presence.problem and not self.outcomes:
                raise CohortError(f"{name!r} cannot take part in the whole job: {presence.problem}")
        self._met = True

    def _site(self, sites: Mapping[int, str], message: Message) -> str:
        node_id = message.metadata.dst_node_id
        if node_id not in sites:
            raise ConfigError(f"node {node_id} has not proved to be a site of the plan")
        return sites[node_id]

    def _cohort(self, asked: Collection[str], there: Collection[str]) -> tuple[str, ...]:
        """The sites asked; one that has no node stays in the cohort, as a site that drops out."""
        plan = self._job.plan
        if draws_cohorts(plan, len(self.outcomes) + 1):
            raise ConfigError(
                f"under scheme {plan.scheme!r} no strategy chooses {plan.addends} of "
                f"{len(plan.names)} clients: whom a round asks follows from plan and run. Ask all "
                "(training.cohort_size = 0), or take another scheme"
            )
        absent = {name for name in plan.names if name not in there}
        cohort = {*asked, *absent} if plan.addends == len(plan.names) else set(asked)
        if len(cohort) != plan.addends:
            raise ConfigError(
                f"the strategy asks {len(asked)} clients; the noise of the plan is sized for "
                f"{plan.addends} of {len(plan.names)}. Set fraction_train and min_train_nodes of "
                "the strategy, or cohort_size of the plan, so that they agree"
            )
        return tuple(name for name in plan.names if name in cohort)

    def _evaluate(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        if self._evaluation != "public":
            return []
        return list(self._grid.send_and_receive(messages, timeout=timeout))


def say(text: str) -> None:
    """Report to whoever follows the coordinator's log."""
    log(INFO, "privagg: %s", text)


def _one_request(messages: Sequence[Message]) -> TrainRequest:
    """What all messages ask for; a round sends one model, with one set of settings, to everybody.

    Raises:
        ConfigError: they differ.
    """
    first = messages[0].content
    for message in messages[1:]:
        if message.content is not first and message.content != first:
            raise ConfigError(
                "the strategy sends different models or settings to different clients; a round of "
                "privagg starts everybody from the same"
            )
    try:
        return TrainRequest.of(first)
    except EncodingError as error:
        raise ConfigError(f"the strategy's messages: {error}") from error
