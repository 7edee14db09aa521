"""The one way to open a party: from its folder.

    setup, roster = open_federation(folder), folder.pins().pinned_roster   # on its own machine
    open_ledger(setup, folder)               # any party's ledger, for writing
    open_holder(setup, folder, roster)       # makes runs' keys and opens by them
    open_site(setup, folder, roster)         # trains: open_seat, and what trains
    open_party(folder)                       # what a process that serves a folder answers with
    open_node(folder)                        # the same where a Flower app trains

On a machine of its own a party believes its own `pins.toml`: configuration and plan have to match
those pins, or nothing is opened. In a local run one person acts for all; the configuration is the
one that was read, and the roster is made from the identities in the folders.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from privagg.config.evaluating import EvaluateSetup
from privagg.config.jobs import agreed_job, job_of, jobs_besides
from privagg.config.schema import load_config
from privagg.config.setup import TRAINING, Setup
from privagg.durable import write_whole
from privagg.errors import ApprovalError, ConfigError, DataError, PrivaggError, WrongRoundError
from privagg.identity.keys import Roster
from privagg.party.folder import PartyFile, PartyFolder
from privagg.party.home import FolderHome
from privagg.party.local import local_folder
from privagg.party.own_data import own_table, with_own_data
from privagg.party.samples import Samples
from privagg.party.standing import PLAN_NAME, kept_plan
from privagg.privacy.ledger import Approval, CheckpointKeeper, Ledger
from privagg.privacy.plan import ClientPlan, TrainingPlan
from privagg.privacy.randomness import Randomness, SystemRandomness
from privagg.protocol.frames import read_message
from privagg.protocol.holder import Holder
from privagg.protocol.key_holder import KeyHolder
from privagg.protocol.key_statement import KeyTerms
from privagg.protocol.mask_holder import MaskHolder
from privagg.protocol.messages import refusal_text
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.protocol.peers import PeerCheckpoints
from privagg.protocol.pins import Pins
from privagg.protocol.site import Seat, Site
from privagg.protocol.transport import Handler
from privagg.secure.opening import key_generator
from privagg.training.factories import ApprovedCode, code_approved_in
from privagg.training.known import RECOGNISED_SHARE, KnownRecords, Overlap
from privagg.training.tablefile import OwnTable

_OWNERS_LOG = logging.getLogger(__name__)
"""Stays on the site's machine."""

ERASING_SECONDS = 600.0
"""How often a process that holds keys looks whether the day of one is over."""


def open_party(
    folder: PartyFolder, randomness: Randomness | None = None, *, stays: bool = False
) -> Handler:
    """The handler of a site or of the key holder, as its folder pins the federation.

    Each message is answered by the job whose plan it names: the one that was agreed on at joining,
    opened here and now, or another of the configuration's, opened when its first message comes.

    Args:
        folder: the party's own.
        randomness: of a site; the operating system's unless a test says otherwise.
        stays: this process does; where it holds keys, it looks for those whose day is over.

    Raises:
        ConfigError: the folder is incomplete, or its parts contradict its pins.
        DataError: the site's data does not fit its declaration, or its owner approved other data.
    """
    name, training = folder.party().name, open_federation(folder)
    agreed = agreed_job(training)
    if name not in (*agreed.holders, *agreed.plan.names):
        raise ConfigError(f"{folder.root} is the folder of {name!r}, which answers no messages")
    roster = folder.pins().pinned_roster

    def handler(setup: Setup) -> Handler:
        holder = None
        if name in setup.holders:
            holder = open_holder(setup, folder, roster, stays=stays)
            if name == KEY_HOLDER:
                return holder.handle
        begun = has_begun(setup, folder)
        return open_site(
            setup, folder, roster, randomness=randomness, key_holder=holder, begun=begun
        ).handle

    def besides(training: Setup) -> list[Setup]:
        return [each for each in jobs_besides(training) if each.job != agreed.job]

    def now() -> list[Setup]:
        return besides(open_federation(folder))  # its owner may have named a model since

    first = handler(agreed)
    if not besides(training) and not EvaluateSetup.configured(training.config):
        return first
    return PlanSwitch(first, agreed.plan.digest, roster, now, handler).handle


class PlanSwitch:
    """Hands each message to the job whose plan it names.

    Args:
        agreed: answers what is of the plan that was pinned at joining.
        agreed_digest: that plan's.
        roster: pinned identity keys.
        besides: the configuration's other jobs as they are now.
        open_job: makes one's handler.
    """

    def __init__(
        self,
        agreed: Handler,
        agreed_digest: str,
        roster: Roster,
        besides: Callable[[], Iterable[Setup]],
        open_job: Callable[[Setup], Handler],
    ) -> None:
        self._agreed, self._roster, self._open = agreed, roster, open_job
        self._look, self._agreed_digest = besides, agreed_digest
        self._besides, self._unplanned = dict[str, Setup](), dict[str, str]()
        self._opened = dict[str, Handler]()

    def handle(self, data: bytes) -> bytes:
        """Answer a message.

        Raises:
            As the job's own handler; and what keeps a job from being opened here.
            WrongRoundError: the plan is none of this party's jobs.
        """
        digest = read_message(data, self._roster).header.plan_digest
        if digest == self._agreed_digest:
            return self._agreed(data)
        if digest not in self._besides:
            self._look_again()
        if digest not in self._besides:
            raise WrongRoundError(self._unknown(digest))
        if digest not in self._opened:
            self._opened[digest] = self._open(self._besides[digest])
        return self._opened[digest](data)

    def _look_again(self) -> None:
        """Note what jobs there are now, and which has no plan here, such as of a damaged model."""
        for setup in self._look():
            try:
                self._besides[setup.plan.digest] = setup
            except PrivaggError as error:
                self._unplanned[setup.job] = refusal_text(error)

    def _unknown(self, digest: str) -> str:
        """What is known here instead of a plan, by name."""
        known = [f"{self._agreed_digest[:16]}..., pinned at joining"]
        for own, setup in self._besides.items():
            model = ""
            if isinstance(setup, EvaluateSetup):
                model = f" of the model with SHA-256 {setup.sums.content.model.sha256}"
            known.append(f"{own[:16]}..., {setup.job}{model}")
        known += [f"none for {job}: {why}" for job, why in self._unplanned.items()]
        return f"plan {digest[:16]}... is none of this party's: {'; '.join(known)}"


def open_federation(folder: PartyFolder, job: str = TRAINING, model: Path | None = None) -> Setup:
    """The federation as this party pinned it.

    Args:
        folder: the party's own.
        job: which of the configuration's jobs. The pinned configuration says what any of them is.
        model: file of the opened model that is evaluated; by default the one in the folder.

    Raises:
        ConfigError: the configuration is another file than the one pinned, or stands for another
            plan; or it has no such job.
    """
    folder.require_pinned_configuration()
    path, pins, code = folder.federation_file, folder.pins(), code_in(folder)
    name, kept = folder.party().name, kept_plan(folder, pins)
    setup = Setup(
        with_own_data(load_config(path), folder.party(), folder.root),
        path.resolve().parent,
        source=path,
        pinned=kept if isinstance(kept, TrainingPlan) else None,
        allowed=lambda: code,
        opened=model or folder.evaluated,
        own=lambda site: own_table(folder.party(), folder.root) if site == name else OwnTable(),
        devices=lambda site: folder.party().device if site == name else "auto",
    )
    agreed = agreed_job(setup)
    if agreed.plan.digest != pins.plan_digest:
        raise ConfigError(
            f"{path} stands for plan {agreed.plan.digest[:16]}..., pinned is "
            f"{pins.plan_digest[:16]}...; get the configuration that was agreed on"
        )
    if kept is None:
        write_whole(folder.root / PLAN_NAME, agreed.plan.canonical_json.encode())
    return agreed if job == agreed.job else job_of(setup, job)


def code_in(*folders: PartyFolder) -> ApprovedCode:
    """What the approvals in force in parties' own ledgers let be imported."""
    found = ApprovedCode()
    for folder in folders:
        if has_ledger(folder):
            found |= code_approved_in(Ledger.open(folder.ledger))
    return found


def code_here(setup: Setup) -> ApprovedCode:
    """What the approvals in force in a local run's ledgers let be imported."""
    names = (COORDINATOR, *(site.name for site in setup.config.sites))
    return code_in(*(local_folder(setup.output, name) for name in names))


def open_node(folder: PartyFolder, *, stays: bool = False) -> Seat | Handler:
    """A party whose federation's records a Flower app reads: a site's seat, or the key holder.

    Args:
        folder: the party's own.
        stays: as for `open_party`.

    Raises:
        ConfigError: as `open_party`; or the plan is not one for clients.
    """
    name = folder.party().name
    if name == KEY_HOLDER:
        return open_party(folder, stays=stays)
    setup, roster, holder = open_federation(folder), folder.pins().pinned_roster, None
    ClientPlan.require(setup.plan)
    if name in setup.holders:
        holder = open_holder(setup, folder, roster, stays=stays)
    return open_seat(setup, folder, roster, key_holder=holder)


# --- what every party has ------------------------------------------------------------------------


def make_local(setup: Setup, party: str) -> PartyFolder:
    """A party's folder in a local run, with its identity key; made where it is not there yet.

    Raises:
        ConfigError: it cannot be written.
        LedgerError: as `local_folder`.
    """
    return PartyFolder.create(local_folder(setup.output, party).root, PartyFile(name=party))


def open_ledger(setup: Setup, folder: PartyFolder, *, owner_key: str = "") -> Ledger:
    """A party's ledger, for writing; made where it does not exist yet.

    Args:
        setup: whose accountant guards the budgets.
        folder: the party's own.
        owner_key: public key (hex) that a new ledger pins as its owner's; none where it is empty.
    """
    identity, accountant = folder.identity(), setup.accountant
    if has_ledger(folder):
        return Ledger.open(folder.ledger, signing_key=identity.key, accountant=accountant)
    return Ledger.create(
        folder.ledger,
        identity.name,
        signing_key=identity.key,
        owner_key=owner_key,
        accountant=accountant,
    )


def has_ledger(folder: PartyFolder) -> bool:
    """Whether there is a ledger, which is opened and never made anew.

    The coordinator's holds no budget: one that was cut off while it was made is made again. A
    site's that holds nothing stays an error, as its budget would look unspent.
    """
    there = folder.ledger.exists()
    return there and (folder.party().name != COORDINATOR or Ledger.is_at(folder.ledger))


def ledger_here(setup: Setup, party: str) -> Ledger:
    """A party's ledger in a local run; the coordinator's is made where it does not exist yet.

    Args:
        setup: what is run.
        party: whose.

    Raises:
        ApprovalError: a site has no ledger: its owner has approved nothing.
        LedgerError: as `local_folder`.
    """
    made = make_local if party == COORDINATOR else decided_folder
    return open_ledger(setup, made(setup, party))


def decided_folder(setup: Setup, site: str) -> PartyFolder:
    """The folder of a site of a local run whose owner has decided something.

    Raises:
        ApprovalError: it has no ledger.
        LedgerError: as `local_folder`.
    """
    folder = local_folder(setup.output, site)
    if not folder.ledger.exists():
        raise setup.unapproved([site], "it has no ledger yet")
    return folder


def key_terms(setup: Setup, roster: Roster) -> KeyTerms:
    """What a statement of a run's key is held against.

    Args:
        setup: the agreed configuration and its plan.
        roster: identity keys that are pinned.
    """
    return KeyTerms(
        roster=roster,
        coordinator=COORDINATOR,
        opener=setup.opener,
        plan=setup.plan,
        scheme=setup.scheme,
        parameters=setup.parameters,
    )


# --- whoever opens -------------------------------------------------------------------------------


def open_holder(
    setup: Setup,
    folder: PartyFolder,
    roster: Roster,
    *,
    until: Callable[[], str] | None = None,
    stays: bool = False,
) -> Holder:
    """The part of a party that makes keys of runs and opens by them: alone, or with the others.

    Args:
        setup: the agreed configuration and its plan.
        folder: the party's own.
        roster: identity keys that it pins.
        until: as for `Holder`; by default as long as the approval in its own ledger says.
        stays: this process does, and looks for keys whose day is over.
    """
    parameters = setup.parameters
    holding: dict[str, Any] = {
        "identity": folder.identity(),
        "key_generator": key_generator(parameters.scheme),
        "parameters": parameters,
        "until": until or (lambda: _approved_until(folder, setup.plan.digest)),
        "roster": roster,
        "aggregator": COORDINATOR,
        "store": folder.openings,
    }
    holder: Holder
    if setup.scheme.every_site:
        holder = MaskHolder(setup.plan, opener=setup.opener, **holding)
    else:
        kept = CheckpointKeeper.open(folder.opener_checkpoints)
        holder = KeyHolder(setup.plan, checkpoints=PeerCheckpoints(kept, roster), **holding)
    if stays:
        threading.Thread(target=_erase_as_days_end, args=(holder,), daemon=True).start()
    return holder


def _approved_until(folder: PartyFolder, plan_digest: str) -> str:
    if not folder.ledger.exists():
        raise ApprovalError(
            f"the owner of {folder.party().name!r} has approved nothing; the owner approves "
            "with: privagg approve"
        )
    with closing(Ledger.open(folder.ledger)) as ledger:
        return ledger.approved_until(plan_digest)


def _erase_as_days_end(holder: Holder) -> None:
    """Erase keys also while nobody asks for anything."""
    while True:
        # Locked, a full disk, a ledger that cannot be read: it is tried again, come what may.
        with suppress(Exception):
            holder.erase_ended()
        time.sleep(ERASING_SECONDS)


# --- a site --------------------------------------------------------------------------------------


def open_seat(
    setup: Setup,
    folder: PartyFolder,
    roster: Roster,
    *,
    randomness: Randomness | None = None,
    key_holder: Holder | None = None,
) -> Seat:
    """A site's place in the federation: all that it has but what trains.

    Args:
        setup: the agreed configuration and its plan.
        folder: the site's own.
        roster: identity keys that it pins.
        randomness: source of its sampling and noise; the operating system's by default.
        key_holder: at a site that holds a secret of runs.
    """
    return Seat(
        identity=folder.identity(),
        pins=Pins(
            roster=roster,
            coordinator=COORDINATOR,
            plan_digest=setup.plan.digest,
            opener=setup.opener,
        ),
        plan=setup.plan,
        scheme=setup.scheme,
        parameters=setup.parameters,
        ledger=open_ledger(setup, folder),
        randomness=randomness or SystemRandomness(),
        key_holder=key_holder,
    )


def open_site(
    setup: Setup,
    folder: PartyFolder,
    roster: Roster,
    *,
    randomness: Randomness | None = None,
    key_holder: Holder | None = None,
    joins: bool = True,
    begun: bool = False,
) -> Site:
    """One site, with its own data and what it computes on them.

    Args:
        setup, folder, roster, randomness, key_holder: as for `open_seat`.
        joins: False where it goes on with a run that it joined before.
        begun: as `has_begun`: its records may have changed since, and what they hold now must not
            stop a run that goes on. They are looked at before the next run's first charge.

    Raises:
        ApprovalError: a factory makes its records, and no approval names it.
        ConfigError, DataError: they cannot be read as declared, or its owner approved other ones.
        ConfigError: the device that its owner names is not there, or samples are to be kept for a
            key that its owner did not sign.
        ModelError: the model does not keep records apart.
    """
    name = folder.party().name
    apart = setup.kept_apart(name)
    if joins and not begun:
        setup.require_joining(setup.section(name))
    learner, recognise = setup.learner(name), recogniser_in(folder, setup)
    if apart is not None:
        _OWNERS_LOG.info("%s trains with %s", name, apart.text)
    seat = open_seat(setup, folder, roster, randomness=randomness, key_holder=key_holder)
    samples = Samples(folder)
    samples.attend(learner, setup.plan.digest, seat.ledger.owner_key)
    home = FolderHome(folder.home)
    home.attend(learner)

    def look(approval: Approval) -> None:
        setup.require_joining(setup.section(name))
        if recognise is not None:
            recognise(approval)

    def at_end(run: str) -> None:
        samples.forget(run)
        if not setup.config.training.algorithm.personal:
            home.forget(run)

    site = seat.site(
        learner,
        records_apart=apart.facts() if apart else None,
        recognise=look if begun else recognise,
        require_state=setup.require_state,
        at_end=at_end,
    )
    if not begun:
        site.require_approved_records()
    return site


def has_begun(setup: Setup, folder: PartyFolder) -> bool:
    """Whether a run of this plan has charged the site: one may be under way.

    Args:
        setup: the agreed configuration and its plan.
        folder: the site's own.
    """
    if not has_ledger(folder):
        return False
    with closing(Ledger.open(folder.ledger)) as ledger:
        key = setup.budget_key(folder.party().name)
        return ledger.plan_was_charged(key, setup.plan.digest)


def recogniser_in(folder: PartyFolder, setup: Setup) -> Callable[[Approval], None] | None:
    """Refuses an approval that was given for other records than the site's, as they are read now.

    Args:
        folder: the site's own.
        setup: says where its records lie.

    Returns:
        What raises DataError where a hundredth of them or more were not there when their data set
        was approved, or count under another name. For the owner's eyes: nobody else is told why.
        None where privagg sees no records.

    Raises:
        ApprovalError, ConfigError, DataError: the records cannot be read.
    """
    name, known = folder.party().name, KnownRecords(folder.known_records)
    tags = setup.tags_of(setup.section(name), known)
    if tags is None:
        return None
    advice = "Nothing was spent; look at the data, then decide again: privagg approve"

    def recognise(approval: Approval) -> None:
        dataset = str(approval.dataset)
        found = known.recognise(dataset, tags)
        if found.elsewhere and not approval.overlaps:
            raise DataError(
                f"records of data set {dataset!r} of {name!r} count already under "
                f"{overlaps_text(found.elsewhere)}, and were not there when the data set was "
                f"approved. {advice}"
            )
        if found.strange >= RECOGNISED_SHARE:
            raise DataError(
                f"{found.strange:.0%} of the records that lie at {name!r} were not there when its "
                f"owner approved data set {dataset!r}; the approval is not for them. {advice}"
            )

    return recognise


def overlaps_text(found: Iterable[Overlap]) -> str:
    """The other names under which records count, each with its share."""
    return ", ".join(f"{each.dataset!r} ({each.share:.0%} of the smaller)" for each in found)
