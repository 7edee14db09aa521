"""privagg around a Flower app of one's own: two lines at the client, two at the server.

    app = ClientApp(mods=[private_updates()])                      # client_app.py

    with private_grid(grid) as private:                            # server_app.py
        result = strategy.start(private, initial_arrays, num_rounds=5)
        private.release(result.arrays)

Each party is opened from its own folder, which `privagg deploy` makes: what it pins, its keys, its
ledger. The federation's configuration says `[data] kind = "app"` and how many parameters the app's
model has; the plan, its noise and its budget follow from it as in any other federation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from privagg.durable import write_whole
from privagg.errors import ConfigError
from privagg.flower.apps import POLL_SECONDS
from privagg.flower.bridge.directory import Directory
from privagg.flower.bridge.grid import PrivateGrid
from privagg.flower.bridge.mod import Elsewhere, PrivateUpdates
from privagg.flower.bridge.transport import FlowerTransport, Patience
from privagg.flower.resident import folder_of_this_process, resident_of
from privagg.party.folder import PartyFolder
from privagg.party.own_data import own_data
from privagg.protocol.site import Seat
from privagg.protocol.transport import Handler

FOLDER_KEY, DATA_KEY = "party-folder", "data"
"""In a node's own configuration: the party's folder, where the environment does not name it; and
its data, where the folder does not."""


def private_updates(
    *,
    evaluation: Literal["refused", "public"] = "refused",
    answer_after_seconds: float = 0.0,
) -> PrivateUpdates:
    """The mod of a client whose party folder is named by its own environment or node config.

    Args:
        evaluation, answer_after_seconds: as for `PrivateUpdates`.
    """
    return PrivateUpdates(
        lambda context: _party_at(_folder_at(context)),
        evaluation=evaluation,
        answer_after_seconds=answer_after_seconds,
    )


def _folder_at(context: Any) -> PartyFolder:
    named = context.node_config.get(FOLDER_KEY)
    return PartyFolder(Path(str(named))) if named else folder_of_this_process()


def _party_at(folder: PartyFolder) -> Seat | Handler | Elsewhere:
    """The party's own process where one listens, or the party opened in this one."""
    resident = resident_of(folder)
    if resident is not None:
        return Elsewhere(resident.ask)
    from privagg.party.open import open_node  # torch and all, only where needed

    return open_node(folder)


def data_of(context: Any) -> Path:
    """Where a client's own data lie: as its node config says, else as its party's folder does, else
    as the federation's configuration.

    Args:
        context: of the ClientApp.

    Raises:
        ConfigError: none names any, or there is nothing where it says.
    """
    if named := context.node_config.get(DATA_KEY):
        return Path(str(named))
    folder = _folder_at(context)
    found = own_data(folder)
    if found is None:
        raise ConfigError(
            f"no data: name them in {folder.party_file} (data = ...), in the node config, or for "
            f"all sites in {folder.federation_file}"
        )
    return found


def _coordinators() -> PartyFolder:
    """The folder of the coordinator that this process runs for."""
    try:
        return folder_of_this_process()
    except ConfigError as error:
        raise ConfigError(
            "this app was started outside of a deployment (`flwr run` alone starts a simulation on "
            "this machine) and belongs to no coordinator; nothing was spent. Start it with: "
            "privagg run CONFIG --runtime flower --deployment FOLDER"
        ) from error


@contextmanager
def private_grid(
    grid: Any,
    *,
    resume: str | None = None,
    folder: Path | None = None,
    weighted_by_key: str = "num-examples",
    evaluation: Literal["dropped", "public"] = "dropped",
    patience: Patience | None = None,
) -> Iterator[PrivateGrid]:
    """A `PrivateGrid` for one run, which is recorded, and reported when the block ends.

    A run whose process died is resumed under its name: the strategy starts anew, from the same
    initial model, and what it asked for before is answered from the run's journal, asking no site
    and spending nothing; then the round that was under way goes on. The journal keeps each round's
    opened sum (3 to 4 bytes a parameter) until somebody removes the run's folder.

    Args:
        grid: Flower's own.
        resume: identifier of a run to resume; a fresh one where it is None or empty.
        folder: the coordinator's; by default the one that the environment names.
        weighted_by_key, evaluation: as for `PrivateGrid`.
        patience: how long rounds wait for answers.

    Yields:
        The Grid to start a strategy with. After the block, report and bundle lie in the
        coordinator's `out/<run>/`, unless a site's ledger did not come.

    Raises:
        ConfigError: the folder is incomplete or contradicts its pins.
        KeyErasedError: the run's key is gone; or, from within the block, it is when the strategy
            asks for a round that is not over.
        ResumeError: there is no such run; or, from within the block, the strategy asks for
            something else than it did before.
        RunInProgressError: another process drives this run.
    """
    from privagg.flower.lead import FLOWER_RUN_NAME
    from privagg.flower.strategy_run import StrategyRun
    from privagg.run.journal import alone

    run = StrategyRun(PartyFolder(folder) if folder is not None else _coordinators(), resume)
    with alone(run.output, run.name):
        write_whole(run.output / FLOWER_RUN_NAME, str(grid.run.run_id).encode())
        transport = FlowerTransport(
            grid,
            Directory(run.identity, run.roster, run.name, run.setup.plan.digest),
            patience=patience or Patience(poll_seconds=POLL_SECONDS),
            message_type="train",
        )
        try:
            run.begin(transport)
            private = PrivateGrid(
                grid,
                run.job,
                transport,
                run.rounds(transport),
                weighted_by_key=weighted_by_key,
                evaluation=evaluation,
                release=run.release,
            )
            yield private
        except BaseException as error:
            run.failed(error)
            raise
        run.end(private.outcomes, transport)
