"""What Flower's parts of one party need: the places in `<party>/flower/`.

flower.toml      addresses: the SuperLink's, and the port on this machine
ca.pem           public: the federation's authority; whoever has it knows the SuperLink
ca.key           secret, coordinator only: signs server certificates; may be kept off line
server.pem/.key  coordinator only: the SuperLink's certificate and its secret key
node.key         secret, all others: what the SuperNode authenticates with
app.secret       secret: shared by this party's own two processes, so that no third takes a task
approved.txt     SHA-256 of the apps with code of their own that this machine's owner approved
nodes/           coordinator only: the public node keys it registers, and registered.json
home/, logs/     FLWR_HOME, and what the parts print
superlink.sqlite coordinator only: Flower's own state
"""

from __future__ import annotations

import re
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from privagg.durable import write_new, write_whole
from privagg.errors import ConfigError
from privagg.identity.secretfile import require_private
from privagg.party.cards import join_address, split_address
from privagg.party.folder import PartyFileModel, PartyFolder, toml_text

NODE_PORT = 9094
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of a machine's -> where that machine itself finds what listens."""


class FlowerFile(PartyFileModel):
    """`flower.toml`: addresses.

    Args:
        superlink: `host:port` where nodes reach the SuperLink.
        listen: address that this party's part listens on. A node's never leaves its machine.
        port: port that it listens on.
    """

    superlink: str
    listen: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)

    @field_validator("superlink")
    @classmethod
    def _an_address(cls, address: str) -> str:
        split_address(address)
        return address

    @property
    def local(self) -> str:
        """`host:port` under which this party's own processes reach its part."""
        return join_address(EVERYWHERE.get(self.listen, self.listen), self.port)


_SERVER_BACK = (
    "remove server.key and server.pem beside it and run `privagg deploy party coordinator` again"
)
_BACK = {
    "ca.pem": "copy it: every party that joined has the same file",
    "server.pem": _SERVER_BACK,
    "server.key": _SERVER_BACK,
    "app.secret": "run `privagg deploy party` again, which makes a new one",
    "node.key": "run `privagg deploy party` again, which makes a new one: the others need the new "
    "card, and everybody joins with --replace",
}
"""What to do where a file was lost, by its name."""


@dataclass(frozen=True)
class FlowerFolder:
    """The places in one party's `flower/` folder.

    Args:
        party: the folder that it lies in.
    """

    party: PartyFolder

    def at(self, name: str) -> Path:
        """A place by its name, as listed above."""
        return self.party.flower / name

    @property
    def authority(self) -> Path:
        """Public: the federation's authority."""
        return self.at("ca.pem")

    @property
    def authority_key(self) -> Path:
        """Secret: signs server certificates."""
        return self.at("ca.key")

    @property
    def server_certificate(self) -> Path:
        """The SuperLink's certificate."""
        return self.at("server.pem")

    @property
    def server_key(self) -> Path:
        """Secret: the SuperLink's."""
        return self.at("server.key")

    @property
    def node_key(self) -> Path:
        """Secret: what the SuperNode authenticates with."""
        return self.at("node.key")

    @property
    def app_secret(self) -> Path:
        """Secret: shared by this party's own processes."""
        return self.at("app.secret")

    @property
    def home(self) -> Path:
        """FLWR_HOME of this party's parts."""
        return self.at("home")

    @property
    def logs(self) -> Path:
        """What the parts print."""
        return self.at("logs")

    @property
    def database(self) -> Path:
        """The SuperLink's own state."""
        return self.at("superlink.sqlite")

    def require_secrets(self, *, coordinates: bool) -> None:
        """Refuse lost files, and secrets that others can read, before programs get their paths.

        Args:
            coordinates: the folder is the coordinator's.

        Raises:
            ConfigError: one is missing, can be read or changed by others, or is another user's.
        """
        own = (self.server_certificate, self.server_key) if coordinates else (self.node_key,)
        for path in (self.authority, self.app_secret, *own):
            self.read(path)
        secrets_here = {
            "the authority's key": self.authority_key,
            "the server's key": self.server_key,
            "the node key": self.node_key,
            "the apps' secret": self.app_secret,
        }
        for what, path in secrets_here.items():
            if path.exists():
                require_private(path, what)

    def read(self, path: Path) -> bytes:
        """The bytes of one of the files above that cannot be done without.

        Raises:
            ConfigError: it is missing or cannot be read; the message says what brings it back.
        """
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path} is missing; bring it back from a backup, or {_BACK[path.name]}"
            ) from error
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error

    def make_app_secret(self) -> None:
        """A secret of 256 bits, where there is none yet."""
        if not self.app_secret.exists():
            write_new(self.app_secret, secrets.token_hex(32).encode(), secret=True)

    def settings(self) -> FlowerFile:
        """The addresses.

        Raises:
            ConfigError: no such file, or not one.
        """
        path = self.at("flower.toml")
        try:
            return FlowerFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path} is missing: {self.party.root.name} has not joined yet; once everybody's "
                f"cards are here: privagg deploy join {self.party.root} *.card"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"cannot use {path}: {error}") from error

    def set(self, settings: FlowerFile) -> None:
        """Write the addresses down."""
        self.party.flower.mkdir(mode=0o700, exist_ok=True)
        write_whole(self.at("flower.toml"), toml_text(settings.model_dump()).encode())


def add_approved(folder: FlowerFolder, sha256: str, why: str) -> None:
    """Let an app with code of its own run at this node.

    Args:
        folder: the node's.
        sha256: of the app's archive, 64 hex digits.
        why: who read the app, and why it may run.

    Raises:
        ConfigError: not a SHA-256, no reason, or the list cannot be written.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ConfigError(
            f"{sha256[:80]!r} is no SHA-256 in hex (64 digits), and no app's folder or archive"
        )
    reason = " ".join(why.split())
    if not reason:
        raise ConfigError("say who read the app and why it may run; it stands in the list")
    path = folder.at("approved.txt")
    try:
        folder.party.flower.mkdir(mode=0o700, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{sha256}  {reason}\n")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
