"""A Flower app over four sites behind both doors, in this process: for the stories about them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from privagg.config.plan import requirement_of
from privagg.flower.bridge.directory import Directory
from privagg.flower.bridge.grid import PrivateGrid
from privagg.flower.bridge.inprocess import InProcessGrid
from privagg.flower.bridge.learner import NoLearner
from privagg.flower.bridge.mod import PrivateUpdates
from privagg.flower.bridge.transport import FlowerTransport, Patience
from privagg.identity.keys import Identity, Roster
from privagg.privacy.ledger import BudgetKey, CheckpointKeeper, Ledger
from privagg.privacy.plan import ClientPlan, SiteTerms
from privagg.privacy.randomness import Randomness, SystemRandomness
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.in_memory import LocalTransport
from privagg.protocol.job import Job, RoundOutcome
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.key_statement import KeyTerms
from privagg.protocol.mask_holder import MaskHolder
from privagg.protocol.peers import PeerCheckpoints
from privagg.protocol.pins import Pins
from privagg.protocol.site import Seat
from privagg.protocol.statements import StatementStore
from privagg.run.journal import Journal
from privagg.run.keying import key_of_run
from privagg.run.record import RunRecorder
from privagg.run.replay import ReplayedRounds
from privagg.run.results import RoundReport
from privagg.run.rounds import OnOutcome, RoundRunner
from privagg.secure.opening import key_generator
from privagg.secure.registry import scheme
from tests.approvals import FOR_EVER, approve_plan

NAMES = ("north", "east", "south", "west")
OPENER = "key-holder"
SHAPES = {"weight": (2, 3), "bias": (1,)}
DIMENSION = 7


def initial_arrays() -> ArrayRecord:
    """The model that every run starts from."""
    rng = np.random.default_rng(5)
    return ArrayRecord(
        {n: Array(rng.normal(size=shape).astype(np.float32)) for n, shape in SHAPES.items()}
    )


def drift(site: str) -> dict[str, np.ndarray]:
    """Where a site's data pull the model: private, and of norm well below the clip."""
    rng = np.random.default_rng(NAMES.index(site))
    return {n: 0.05 * rng.normal(size=shape) for n, shape in SHAPES.items()}


class CountingApp:
    """An ordinary Flower app, which counts how often it trained and sends all the figures it has.

    It knows nothing of privagg: two steps towards the site's own point, with FedProx's pull where
    the strategy asks for it.
    """

    def __init__(self, mods: list[Any]) -> None:
        self.trained: list[str] = []
        self.evaluated = 0
        self.fail: Callable[[], None] = lambda: None
        self.app = ClientApp(mods=mods)
        for action in ("default", "other"):
            self.app.train(action)(self._train)
            self.app.evaluate(action)(self._evaluate)
            self.app.query(action)(self._evaluate)

    def _train(self, message: Message, context: Context) -> Message:
        site = str(context.node_config["party"])
        self.trained.append(site)
        self.fail()
        start = {n: a.numpy() for n, a in message.content["arrays"].items()}
        config = message.content["config"]
        mu, rate = float(config.get("proximal-mu", 0.0)), float(config.get("rate", 1.0))
        model = {n: a.astype(np.float64) for n, a in start.items()}
        for _ in range(2):
            for name, pull in drift(site).items():
                model[name] += rate * (pull - mu * (model[name] - start[name]))
        made = ArrayRecord({n: Array(m.astype(np.float32)) for n, m in model.items()})
        figures = MetricRecord({"num-examples": 303, "mean-age": 54.4})
        return Message(RecordDict({"arrays": made, "metrics": figures}), reply_to=message)

    def _evaluate(self, message: Message, context: Context) -> Message:
        self.evaluated += 1
        figures = MetricRecord({"num-examples": 303, "accuracy": 0.8})
        extra = ArrayRecord({"rows": Array(np.arange(4.0))})
        return Message(RecordDict({"metrics": figures, "rows": extra}), reply_to=message)


class Doors:
    """Four hospitals and a key holder as nodes of one in-process Grid."""

    def __init__(
        self,
        folder: Path,
        *,
        scheme_name: str = "plaintext",
        budget: str = "Infinity",
        evaluation: Any = "refused",
        randomness: Randomness | None = None,
        **plan: Any,
    ) -> None:
        self.folder = folder
        self.scheme = scheme(scheme_name)
        self.opener = "coordinator" if self.scheme.every_site else OPENER
        self.randomness = randomness or SystemRandomness()
        facts: dict[str, Any] = {
            "sites": [SiteTerms(name=n, records=40, weight=i + 1) for i, n in enumerate(NAMES)],
            "dimension": DIMENSION,
            "rounds": 5,
            "clip_norm_l2": Decimal(2),
            "sensitivity_grid": 2**24,
            "noise_multiplier": Decimal(0),
            "delta": Decimal("1e-5"),
            "custody": "authority" if self.opener == OPENER else "every-site",
            "scheme": scheme_name,
            **plan,
        }
        self.plan = ClientPlan.model_validate(facts)
        requirement = requirement_of(self.plan, security_bits=128)
        least = {"minimum_survivors": self.plan.minimum_survivors, "colluders": self.plan.colluders}
        options = least if self.scheme.every_site else {}
        self.parameters = self.scheme.choose_parameters(requirement, **options)
        self.until = FOR_EVER
        self.identities = {n: Identity.generate(n) for n in (*NAMES, "coordinator", OPENER)}
        self.roster = Roster.of(*self.identities.values())
        self.ledgers = {
            name: self.ledger(name, Decimal(budget), folder / f"{name}.sqlite") for name in NAMES
        }
        self.counting = CountingApp([PrivateUpdates(self.party, evaluation=evaluation)])
        parties = (*NAMES, *(() if self.scheme.every_site else (OPENER,)))
        self.nodes = {name: 11 + i for i, name in enumerate(parties)}
        self.grid = InProcessGrid(
            dict.fromkeys(self.nodes.values(), self.counting.app),
            node_configs={node: {"party": name} for name, node in self.nodes.items()},
        )

    def ledger(self, name: str, budget: Decimal, path: Path) -> Ledger:
        ledger = Ledger.create(path, name, signing_key=self.identities[name].key)
        approve_plan(ledger, BudgetKey(name, "site"), self.plan.digest, budget)
        return ledger

    def party(self, context: Context) -> Any:
        """Who a node is, as the node's own configuration says."""
        name = str(context.node_config["party"])
        if name == OPENER:
            return self.key_holder().handle
        return self.seat(name)

    def seat(self, name: str) -> Seat:
        pins = Pins(
            roster=self.roster,
            coordinator="coordinator",
            plan_digest=self.plan.digest,
            opener=self.opener,
        )
        return Seat(
            identity=self.identities[name],
            pins=pins,
            plan=self.plan,
            scheme=self.scheme,
            parameters=self.parameters,
            ledger=self.ledgers[name],
            randomness=self.randomness,
            key_holder=self.mask_holder(name) if self.scheme.every_site else None,
        )

    def mask_holder(self, name: str) -> MaskHolder:
        return MaskHolder(
            self.plan,
            identity=self.identities[name],
            key_generator=key_generator(self.plan.scheme),
            parameters=self.parameters,
            until=lambda: self.until,
            roster=self.roster,
            aggregator="coordinator",
            opener=self.opener,
            store=self.folder / f"{name}-openings.sqlite",
        )

    def key_holder(self) -> KeyHolder:
        return KeyHolder(
            self.plan,
            identity=self.identities[OPENER],
            key_generator=key_generator(self.plan.scheme),
            parameters=self.parameters,
            until=lambda: self.until,
            roster=self.roster,
            aggregator="coordinator",
            store=self.folder / "openings.sqlite",
            checkpoints=PeerCheckpoints(
                CheckpointKeeper.open(self.folder / "key-holder-kept.sqlite"), self.roster
            ),
        )

    @property
    def terms(self) -> KeyTerms:
        return KeyTerms(
            roster=self.roster,
            coordinator="coordinator",
            opener=self.opener,
            plan=self.plan,
            scheme=self.scheme,
            parameters=self.parameters,
        )

    def told(self) -> str:
        """Names the run's key, once every site was told of it, without a Grid."""
        holder = LocalTransport({OPENER: self.key_holder().handle})
        key, _ = key_of_run(self.terms, "run-1", self.identities["coordinator"], holder)
        for name in NAMES:
            self.seat(name).site(NoLearner()).handle(key.frame)
        return key.key_id

    def private_grid(
        self,
        *,
        on_outcome: OnOutcome | None = None,
        journal: Journal | None = None,
        attempts: int = 1,
        over: bool = False,
        wrap: Callable[[FlowerTransport], Any] = lambda transport: transport,
        **options: Any,
    ) -> PrivateGrid:
        """The server's door, for one run, once every node has said who it is."""
        identity = self.identities["coordinator"]
        directory = Directory(identity, self.roster, "run-1", self.plan.digest)
        patience = Patience(answer_seconds=0.3, absent_seconds=0.3, poll_seconds=0.01)
        transport = FlowerTransport(self.grid, directory, patience=patience, message_type="train")
        key, gone = key_of_run(self.terms, "run-1", identity, transport, journal, over=over)
        job = Job(
            run="run-1",
            plan=self.plan,
            scheme=self.scheme,
            key=key,
            key_gone=gone,
            identity=identity,
            roster=self.roster,
            opener=self.opener,
            watch=CheckpointWatch(CheckpointKeeper.open(self.folder / "kept.sqlite"), self.roster),
        )
        record = RunRecorder(
            self.coordinators_ledger(), job.run, StatementStore.beside(self.folder)
        )

        def note(outcome: RoundOutcome) -> None:
            record.keep(outcome.statements)
            record.round(RoundReport(outcome.summary(), {}, {}, 0.0))

        rounds = RoundRunner(job, wrap(transport), record, journal=journal, attempts=attempts)
        answers = ReplayedRounds(rounds, on_outcome or note, over=over)
        grid = PrivateGrid(self.grid, job, transport, answers, **options)
        assert set(grid.get_node_ids()) == {self.nodes[name] for name in NAMES}
        return grid

    def coordinators_ledger(self) -> Ledger:
        path, key = self.folder / "coordinator.sqlite", self.identities["coordinator"].key
        if path.exists():
            return Ledger.open(path, signing_key=key)
        return Ledger.create(path, "coordinator", signing_key=key)

    def charges(self, name: str) -> int:
        return self.ledgers[name].spent(BudgetKey(name, "site")).charges
