"""Which of Flower's nodes is which party, believed only on that party's own signature.

A node's number, its configuration and whatever it says of itself prove nothing. The coordinator
sends each node a fresh nonce; the node is the party whose pinned identity key signed it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from privagg.errors import MessageError, UnknownPartyError
from privagg.identity.keys import Identity, Roster
from privagg.protocol.frames import Message, read_message
from privagg.protocol.messages import Challenge, Presence, Refusal

NONCE_BYTES = 32


@dataclass
class Directory:
    """Party -> node, as proved so far.

    Args:
        identity: the coordinator's own; signs the challenges.
        roster: pinned identity keys of everybody.
        run, plan_digest: what the parties are asked about.
        nodes: party -> node.
        presences: party -> its last answer.
        strangers: node -> why nobody believes it.
    """

    identity: Identity
    roster: Roster
    run: str
    plan_digest: str
    nodes: dict[str, int] = field(default_factory=dict)
    presences: dict[str, Presence] = field(default_factory=dict)
    strangers: dict[int, str] = field(default_factory=dict)
    _nonces: dict[int, str] = field(default_factory=dict)

    def unknown(self, alive: Collection[int]) -> list[int]:
        """Nodes that are there and are neither a party's nor found to be a stranger's."""
        known = {*self.nodes.values(), *self.strangers, *self._nonces}
        return [node for node in alive if node not in known]

    def ask_anew(self) -> None:
        """Have everybody asked again who is a stranger, or whose answer is not waited for.

        Whoever reads only the first answer of an exchange leaves the others' challenges behind.
        """
        self.strangers.clear()
        self._nonces.clear()

    def challenge(self, node: int) -> bytes:
        """A frame that asks a node who it is."""
        nonce = self._nonces[node] = secrets.token_hex(NONCE_BYTES)
        header = Challenge(
            run=self.run,
            round=1,
            attempt=1,
            sender=self.identity.name,
            plan_digest=self.plan_digest,
            nonce=nonce,
        )
        return Message.sign(self.identity, header).to_bytes()

    def welcome(self, node: int, frame: bytes) -> str:
        """Believe a node, if its answer proves who it is.

        Returns:
            The party's name.

        Raises:
            ProtocolError: it proves nothing; the node is a stranger from now on.
        """
        nonce = self._nonces.pop(node, None)
        try:
            return self._welcome(node, nonce, frame)
        except Exception as error:
            self.strangers[node] = f"{type(error).__name__}: {error}"
            raise

    def _welcome(self, node: int, nonce: str | None, frame: bytes) -> str:
        header = read_message(frame, self.roster).header
        if isinstance(header, Refusal):
            raise UnknownPartyError(f"{header.sender!r} refuses to take part: {header.message}")
        if not isinstance(header, Presence) or nonce is None or header.nonce != nonce:
            raise MessageError(f"{header.sender!r} sent no answer to the challenge of node {node}")
        if header.sender == self.identity.name:
            raise UnknownPartyError(f"node {node} claims to be the coordinator")
        self.nodes[header.sender] = node
        self.presences[header.sender] = header
        return header.sender

    def silent(self, node: int, problem: str) -> None:
        """A node gave no answer to its challenge; it may be asked again."""
        self._nonces.pop(node, None)
        self.strangers[node] = problem

    def forget_absent(self, alive: Collection[int]) -> None:
        """Nodes that went away have to prove who they are when they come back."""
        self.nodes = {party: node for party, node in self.nodes.items() if node in alive}
        self.strangers = {n: why for n, why in self.strangers.items() if n in alive}
        self._nonces = {n: nonce for n, nonce in self._nonces.items() if n in alive}

    def absence(self, party: str) -> str:
        """Why a party has no node, naming the strangers that are there."""
        if not self.strangers:
            return f"no node of {party!r} is connected"
        found: Mapping[int, str] = self.strangers
        told = "; ".join(f"node {node}: {why}" for node, why in sorted(found.items())[:4])
        return f"no node proved to be {party!r}. Refused: {told}"
