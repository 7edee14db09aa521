"""The two apps that Flower starts: at a party its handler, at the coordinator the run.

Flower's run brings no code of its own, only the names of these two. Each finds the folder of the
party that it runs for in its environment, which that party's own machine sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from privagg.errors import ConfigError
from privagg.flower.bridge.apps import make_client_app, make_server_app
from privagg.flower.bridge.directory import Directory
from privagg.flower.bridge.transport import FlowerTransport, Patience
from privagg.flower.resident import folder_of_this_process, resident_of
from privagg.privacy.randomness import Randomness

RUN_KEY, JOB_KEY, ANSWER_KEY, ABSENT_KEY = "run", "job", "answer-seconds", "absent-seconds"
"""What a run is submitted with: its identifier, its job, and how long the coordinator waits."""

POLL_SECONDS = 0.25


def make_party_app(randomness: Callable[[], Randomness] | None = None) -> Any:
    """A ClientApp for the party of this process: its resident process, or the party opened here.

    Args:
        randomness: makes the source of sampling and noise of a party opened here. The operating
            system's by default; any other is charged as what it is, and only code that the site's
            owner approved can say so.
    """

    def open_handler(context: Any) -> Callable[[bytes], bytes]:
        folder = folder_of_this_process()
        resident = resident_of(folder)
        if resident is not None:
            return resident.ask
        from privagg.party.open import open_party  # torch and all, only where needed

        return open_party(folder, randomness() if randomness is not None else None)

    return make_client_app(open_handler)


def make_run_app(generator: str | None = None) -> Any:
    """A ServerApp for the coordinator of this process.

    Args:
        generator: name of the sites' source of randomness, for the record.
    """

    def drive(grid: Any, context: Any) -> None:
        from privagg.config.setup import TRAINING
        from privagg.flower.lead import lead, parties_of
        from privagg.party.open import open_federation

        folder, settings = folder_of_this_process(), context.run_config
        run, job = _run_of(settings), str(settings.get(JOB_KEY) or TRAINING)
        setup, pins = open_federation(folder, job), folder.pins()
        directory = Directory(folder.identity(), pins.pinned_roster, run, setup.plan.digest)
        transport = FlowerTransport(grid, directory, patience=_patience(settings))
        problems = transport.meet(parties_of(setup))
        kept = {party: said.kept_sizes for party, said in directory.presences.items()}
        lead(folder, transport, run, problems, kept=kept, generator=generator, job=job)

    return make_server_app(drive)


def _run_of(settings: Mapping[str, Any]) -> str:
    run = settings.get(RUN_KEY)
    if not isinstance(run, str) or not run:
        raise ConfigError(f"the run was submitted without {RUN_KEY!r}, its identifier")
    return run


def _patience(settings: Mapping[str, Any]) -> Patience:
    given = Patience()
    return Patience(
        answer_seconds=float(settings.get(ANSWER_KEY, given.answer_seconds)),
        absent_seconds=float(settings.get(ABSENT_KEY, given.absent_seconds)),
        poll_seconds=POLL_SECONDS,
    )


client_app = make_party_app()
server_app = make_run_app()
