"""The encryption key of one run, as its holder states it: who it is for, and under which signature.

Nobody configures a key. The key holder makes one for each run and signs a statement of it; whoever
reads the statement holds it against its own configuration: the key holder's identity key, the
federation, the run, the plan and the scheme's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from privagg.errors import (
    CiphertextError,
    KeyMismatchError,
    MessageError,
    UnknownPartyError,
    WrongRoundError,
)
from privagg.identity.keys import Roster
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import KeyStatement, Statement
from privagg.secure.scheme import EncryptionKey, Parameters, Scheme

FIRST = 1
"""A key is of a whole run: request and statement are numbered as its first round and attempt."""


@dataclass(frozen=True)
class RunKey:
    """A statement that was found good.

    Args:
        frame: the signed bytes, the same for everybody and every time.
        statement: without the key itself, for a third party.
        key: what sites encrypt under; its parameters are complete.
        until: last day, UTC, on which anything is opened under it.
    """

    frame: bytes
    statement: Statement
    key: EncryptionKey
    until: str

    @property
    def key_id(self) -> str:
        """SHA-256 (hex) that names the key."""
        return self.key.key_id

    @property
    def parameters(self) -> Parameters:
        """The scheme's parameters, the key's public facts included."""
        return self.key.parameters


@dataclass(frozen=True)
class KeyTerms:
    """What a reader holds a statement against: its own configuration.

    Args:
        roster: identity keys of everybody.
        coordinator: who asks for keys.
        opener: the only party whose statement counts.
        plan_digest: SHA-256 (hex) of the plan.
        scheme: that the plan names.
        parameters: chosen for the plan, before any key exists.
    """

    roster: Roster
    coordinator: str
    opener: str
    plan_digest: str
    scheme: Scheme
    parameters: Parameters

    @property
    def federation_digest(self) -> str:
        """Of this federation, as the reader knows it."""
        return self.roster.federation_digest(coordinator=self.coordinator, opener=self.opener)

    def read(self, frame: bytes, run: str) -> RunKey:
        """Check a statement's bytes.

        Raises:
            MessageError, SignatureError, UnknownPartyError: no message of a pinned party.
            As `take`.
        """
        return self.take(read_message(frame, self.roster), run)

    def take(self, message: Message, run: str) -> RunKey:
        """Check a message whose signature was verified.

        Args:
            message: what came.
            run: whose key it has to be.

        Raises:
            UnknownPartyError: another party than the key holder signed it.
            WrongRoundError: it is for another run, plan or federation.
            KeyMismatchError: the key in it is not the one it names, or has other parameters.
            MessageError: it is no statement of a key.
        """
        header = message.header
        if not isinstance(header, KeyStatement):
            raise MessageError(f"a {type(header).__name__} states no key")
        if header.sender != self.opener:
            raise UnknownPartyError(
                f"{header.sender!r} states a key; the keys of this federation are those of "
                f"{self.opener!r}"
            )
        self._check_place(header, run)
        try:
            key = self.scheme.load_encryption_key(self.parameters, bytes(message.payload))
        except CiphertextError as error:
            raise KeyMismatchError(f"what {self.opener!r} states is no key: {error}") from error
        stated = (header.parameters_fingerprint, header.key_id)
        if stated != (key.parameters.fingerprint, key.key_id):
            raise KeyMismatchError(
                f"{self.opener!r} states key {header.key_id[:16]}... with parameters "
                f"{header.parameters_fingerprint[:16]}..., what came with it is key "
                f"{key.key_id[:16]}... with {key.parameters.fingerprint[:16]}..."
            )
        return RunKey(message.to_bytes(), message.statement, key, header.until)

    def _check_place(self, header: KeyStatement, run: str) -> None:
        if header.round_id != (run, FIRST, FIRST) or header.plan_digest != self.plan_digest:
            raise WrongRoundError(
                f"the key that came is stated for run {header.run}, plan "
                f"{header.plan_digest[:16]}...; this is run {run}, plan {self.plan_digest[:16]}..."
            )
        if header.federation_digest != self.federation_digest:
            raise WrongRoundError(
                f"the key that came is stated for federation {header.federation_digest[:16]}..., "
                f"this is {self.federation_digest[:16]}...: other identity keys, or other roles"
            )
