"""A run opened at its coordinator's folder: fresh, or resumed where it was killed."""

from __future__ import annotations

from privagg.config.evaluating import RoundsSetup
from privagg.config.setup import TRAINING, Setup
from privagg.errors import ConfigError
from privagg.identity.keys import Roster
from privagg.party.folder import PartyFolder
from privagg.party.open import key_terms, open_federation, open_ledger
from privagg.privacy.ledger import CheckpointKeeper
from privagg.privacy.randomness import SystemRandomness
from privagg.protocol.checkpoints import CheckpointWatch
from privagg.protocol.job import Job
from privagg.protocol.names import COORDINATOR
from privagg.protocol.transport import Transport
from privagg.run.coordinator import Coordinator
from privagg.run.journal import Journal
from privagg.run.keying import key_of_run


def open_coordinator(
    folder: PartyFolder,
    transport: Transport,
    run: str,
    *,
    generator: str | None = None,
    job: str = TRAINING,
) -> Coordinator:
    """The coordinator of a run, fresh, or resumed where a killed one left off.

    Args:
        folder: the coordinator's own.
        transport: carries messages to the parties.
        run: the run's identifier.
        generator: name of the sites' source of randomness, for the record.
        job: which of the configuration's jobs.

    Raises:
        ConfigError: as `open_party`, or the folder is another party's.
        As `key_of_run`.
    """
    setup, roster = open_federation(folder, job), folder.pins().pinned_roster
    if setup.job == TRAINING and RoundsSetup.configured(setup.config):
        raise ConfigError(
            "evaluations between rounds are made where all parties run on one machine; over a "
            "deployment leave out [evaluation.rounds]. Nothing was spent"
        )
    output = folder.run_folder(run)
    output.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(output)
    done = journal.progress()
    over = done is not None and bool(done.over)
    return Coordinator(
        setup,
        job=open_job(setup, folder, roster, run, transport, journal, over=over),
        terms=key_terms(setup, roster),
        transport=transport,
        ledger=open_ledger(setup, folder),
        output=output,
        generator=generator or SystemRandomness().name,
        journal=journal,
    )


def open_job(
    setup: Setup,
    folder: PartyFolder,
    roster: Roster,
    run: str,
    transport: Transport,
    journal: Journal,
    *,
    over: bool = False,
) -> Job:
    """What the coordinator holds for one run: what is its own, and the key holder's statement.

    Args:
        setup: the agreed configuration and its plan.
        folder: the coordinator's own.
        roster: identity keys that it pins.
        run: the run's identifier.
        transport: carries messages to the parties.
        journal: the run's.
        over: whether no round is left to be asked for.

    Raises:
        ConfigError: the folder is another party's, or incomplete.
        As `key_of_run`.
    """
    identity = folder.identity()
    if identity.name != COORDINATOR:
        raise ConfigError(
            f"{folder.root} is the folder of {identity.name!r}, not the coordinator's"
        )
    terms, done = key_terms(setup, roster), journal.progress()
    number = max(done.round, 1) if done is not None else 1
    key, gone = key_of_run(terms, run, identity, transport, journal, number=number, over=over)
    return Job(
        run=run,
        plan=setup.plan,
        scheme=setup.scheme,
        key=key,
        key_gone=gone,
        identity=identity,
        roster=roster,
        opener=setup.opener,
        watch=CheckpointWatch(CheckpointKeeper.open(folder.checkpoints), roster),
    )
