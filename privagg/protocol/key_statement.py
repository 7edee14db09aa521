"""The encryption key of one run, as its holder states it: who it is for, and under which signature.

Nobody configures a key. The key holder makes one for each run and signs a statement of it; whoever
reads the statement holds it against its own configuration: the key holder's identity key, the
federation, the run, the plan and the scheme's parameters.

Where nobody holds a key that opens sums, every site states its own, its card. The coordinator
states all cards together, each in the frame that its site signed; `key_id` covers them all, so that
two sites that were shown different cards never upload under one key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakValueDictionary

from privagg.errors import (
    CiphertextError,
    KeyMismatchError,
    MessageError,
    SchemeError,
    UnknownPartyError,
    WrongRoundError,
)
from privagg.identity.keys import Roster
from privagg.privacy.plan import Plan
from privagg.privacy.unit import Custody
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import KeyStatement, Statement
from privagg.secure.scheme import Buffer, EncryptionKey, Occasion, Parameters, Scheme

FIRST = 1
"""Request and statement of a key are numbered as its first round, and as that one's first attempt.

A key is of a whole run; the keys on cards are of a roster epoch.
"""


def epoch_name(run: str, first: int) -> str:
    """How the rounds that share a key are named: by the run, later ones by their first round too.

    Args:
        run: the run's identifier, which holds no slash.
        first: the first round under the key.
    """
    return run if first == FIRST else f"{run}/{first}"


@dataclass(frozen=True)
class RunKey:
    """A statement that was found good.

    Args:
        frame: the signed bytes, the same for everybody and every time.
        statement: without the key itself, for a third party.
        key: what sites encrypt under; its parameters are complete.
        until: last day, UTC, on which anything is opened under it.
        run: whose key it is.
        first: the first round under it.
        members: site -> the key on its card, in roster order; empty where one party holds the key.
        cards: statements of the cards, in the same order.
        without: site -> why it has no card among them; known to whoever asked for the cards, and
            to nobody who reads the statement later.
    """

    frame: bytes
    statement: Statement
    key: EncryptionKey
    until: str
    run: str
    first: int = FIRST
    members: Mapping[str, bytes] = field(default_factory=dict)
    cards: tuple[Statement, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) that names the key."""
        return self.key.key_id

    @property
    def parameters(self) -> Parameters:
        """The scheme's parameters, the key's public facts included."""
        return self.key.parameters

    @property
    def epoch(self) -> str:
        """Names the rounds under it."""
        return epoch_name(self.run, self.first)

    def occasion(self, number: int, attempt: int, cohort: Sequence[str]) -> Occasion:
        """What contributions of an attempt are made for.

        Args:
            number, attempt: from 1.
            cohort: sites that are asked, in roster order.
        """
        members = tuple(name for name in cohort if name in self.members)
        return Occasion(self.run, number, attempt, members)


@dataclass(frozen=True)
class KeyTerms:
    """What a reader holds a statement against: its own configuration.

    Args:
        roster: identity keys of everybody.
        coordinator: who asks for keys.
        opener: the only party whose statement counts.
        plan: the agreed one; each of its sites states a key where the scheme says so.
        scheme: that the plan names.
        parameters: chosen for the plan, before any key exists.
    """

    roster: Roster
    coordinator: str
    opener: str
    plan: Plan
    scheme: Scheme
    parameters: Parameters

    @cached_property
    def federation_digest(self) -> str:
        """Of this federation, as the reader knows it; every card is held against it."""
        return self.roster.federation_digest(coordinator=self.coordinator, opener=self.opener)

    @property
    def plan_digest(self) -> str:
        """SHA-256 (hex) of the plan."""
        return self.plan.digest

    def first_under_key(self, number: int) -> int:
        """The first round under the key of round `number`: of its epoch where sites have cards.

        Raises:
            PlanError: the plan has no such round.
        """
        return self.plan.epoch(number).first if self.scheme.every_site else FIRST

    def sites(self, first: int) -> tuple[str, ...]:
        """The sites under the key whose first round this is, in roster order."""
        return self.plan.epoch(first).names if self.scheme.every_site else self.plan.names

    def parameters_of(self, first: int) -> Parameters:
        """The scheme's parameters under the key whose first round this is, before it exists."""
        if not self.scheme.every_site:
            return self.parameters
        return self.parameters.for_roster(self.plan.in_round(first).addends)

    def read(self, frame: bytes, run: str) -> RunKey:
        """Check a statement's bytes.

        Raises:
            MessageError, SignatureError, UnknownPartyError: no message of a pinned party.
            As `take`.
        """
        return self.take(read_message(frame, self.roster), run)

    def take(self, message: Message, run: str) -> RunKey:
        """Check a message whose signature was verified.

        What was found good is shared by all who take the same: where one process is many sites,
        one of them reads the key, and it lies in memory once, while anybody holds it.

        Args:
            message: what came.
            run: whose key it has to be.

        Raises:
            UnknownPartyError: another party than the key holder signed it.
            WrongRoundError: it is for another run, plan or federation.
            KeyMismatchError: the key in it is not the one it names, or has other parameters.
            MessageError: it is no statement of a key.
        """
        # All that the checks look at: the roster with who is who, plan, parameters, and the frame.
        terms = self.federation_digest, self.plan_digest, self.parameters.fingerprint
        frame = message.header_bytes, message.payload_digest, message.signature
        found = _TAKEN.get((run, terms, frame))
        if found is None:
            found = _TAKEN[run, terms, frame] = self._take(message, run)
        return found

    def _take(self, message: Message, run: str) -> RunKey:
        header = message.header
        if not isinstance(header, KeyStatement):
            raise MessageError(f"a {type(header).__name__} states no key")
        if header.sender != self.opener:
            raise UnknownPartyError(
                f"{header.sender!r} states a key; the keys of this federation are those of "
                f"{self.opener!r}"
            )
        self._check_place(header, run)
        if self.scheme.every_site:
            return self._take_cards(header, message)
        key = self._load(header, message.payload)
        self._check_key(header, key)
        return RunKey(message.to_bytes(), message.statement, key, header.until, run, header.round)

    def take_card(self, message: Message, run: str) -> KeyStatement:
        """Check what a site states of its own key.

        Raises:
            As `take`; UnknownPartyError: another party than a site of the plan signed it.
        """
        header = message.header
        if not isinstance(header, KeyStatement):
            raise MessageError(f"a {type(header).__name__} states no key")
        self._check_place(header, run)
        if header.sender not in self.sites(header.round):
            raise UnknownPartyError(
                f"{header.sender!r} states a key, and is no site of the plan in round "
                f"{header.round}"
            )
        self._check_key(header, self._load(header, message.payload))
        return header

    def _take_cards(self, header: KeyStatement, message: Message) -> RunKey:
        """All cards of a run, each checked; what they are together is what is stated."""
        frames = [read_message(frame, self.roster) for frame in split_cards(message.payload)]
        stated = [self.take_card(frame, header.run) for frame in frames]
        names = tuple(card.sender for card in stated)
        first = header.round
        if any(card.round != first for card in stated):
            raise KeyMismatchError("the cards of a run are of different epochs")
        if names != tuple(name for name in self.sites(first) if name in names):
            raise KeyMismatchError("the cards of a run are of different sites, in roster order")
        cards = dict(zip(names, (bytes(frame.payload) for frame in frames), strict=True))
        key = self.joint_key(header.run, cards, first)
        self._check_key(header, key)
        if header.until != self.last_day(stated, first):
            raise KeyMismatchError("the cards of a run last while enough of them for a sum do")
        statements = tuple(frame.statement for frame in frames)
        return RunKey(
            message.to_bytes(), message.statement, key, header.until, header.run, first,
            cards, statements,
        )  # fmt: skip

    def joint_key(self, run: str, cards: Mapping[str, bytes], first: int = FIRST) -> EncryptionKey:
        """The key that the cards of a run make together.

        Args:
            run: its identifier.
            cards: site -> the key that it states, in roster order.
            first: the first round under the key.

        Raises:
            KeyMismatchError: too few, or one is no key.
        """
        try:
            return self.scheme.joint_key(
                self.parameters_of(first),
                epoch=epoch_name(run, first),
                roster=self.federation_digest,
                cards=cards,
            )
        except CiphertextError as error:
            raise KeyMismatchError(f"the cards of run {run!r} make no key: {error}") from error

    def last_day(self, cards: Iterable[KeyStatement], first: int) -> str:
        """The last day, UTC, on which as many sites as a sum needs still have their keys.

        Args:
            cards: what sites stated, as many at least.
            first: the first round under the key.
        """
        least = self.plan.in_round(first).minimum_survivors
        return sorted((card.until for card in cards), reverse=True)[least - 1]

    def _load(self, header: KeyStatement, payload: Buffer) -> EncryptionKey:
        try:
            return self.scheme.load_encryption_key(self.parameters_of(header.round), bytes(payload))
        except CiphertextError as error:
            raise KeyMismatchError(f"what {header.sender!r} states is no key: {error}") from error

    def _check_key(self, header: KeyStatement, key: EncryptionKey) -> None:
        stated = (header.parameters_fingerprint, header.key_id)
        if stated != (key.parameters.fingerprint, key.key_id):
            raise KeyMismatchError(
                f"{header.sender!r} states key {header.key_id[:16]}... with parameters "
                f"{header.parameters_fingerprint[:16]}..., what came with it is key "
                f"{key.key_id[:16]}... with {key.parameters.fingerprint[:16]}..."
            )

    def _check_place(self, header: KeyStatement, run: str) -> None:
        stated, pinned = (header.run, header.attempt), (run, FIRST)
        if stated != pinned or header.plan_digest != self.plan_digest:
            raise WrongRoundError(
                f"the key that came is stated for run {header.run}, plan "
                f"{header.plan_digest[:16]}...; this is run {run}, plan {self.plan_digest[:16]}..."
            )
        if header.round > self.plan.rounds or header.round != self.first_under_key(header.round):
            raise WrongRoundError(
                f"the key that came is stated from round {header.round} on, in which no key begins"
            )
        if header.federation_digest != self.federation_digest:
            raise WrongRoundError(
                f"the key that came is stated for federation {header.federation_digest[:16]}..., "
                f"this is {self.federation_digest[:16]}...: other identity keys, or other roles"
            )


_TAKEN: WeakValueDictionary[tuple[str, tuple[str, ...], tuple[object, ...]], RunKey] = (
    WeakValueDictionary()
)

_CARD = struct.Struct("<I")


def pack_cards(frames: Iterable[bytes]) -> bytes:
    """Cards' frames one after the other, each after its length (u32, little-endian)."""
    return b"".join(_CARD.pack(len(frame)) + frame for frame in frames)


def split_cards(payload: Buffer) -> Iterator[memoryview]:
    """The frames that `pack_cards` put together (untrusted input).

    Raises:
        MessageError: a length that does not fit.
    """
    rest = memoryview(payload).cast("B")
    while rest:
        size = _CARD.unpack_from(rest)[0] if rest.nbytes >= _CARD.size else rest.nbytes
        if rest.nbytes < _CARD.size + size:
            raise MessageError("a list of cards ends within a card")
        yield rest[_CARD.size : _CARD.size + size]
        rest = rest[_CARD.size + size :]


def require_custody(scheme: Scheme, plan: Plan) -> None:
    """Refuse a plan that says otherwise than its scheme who can open a sum.

    Raises:
        SchemeError: one of the two has every site open together, the other a key.
    """
    if scheme.every_site != (plan.custody is Custody.EVERY_SITE):
        raise SchemeError(
            f"custody {plan.custody.value!r} is not that of scheme {scheme.name!r}; agree on a "
            "plan in which the two fit"
        )
