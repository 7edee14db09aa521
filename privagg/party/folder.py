"""The folder of one party: everything it needs to take part from its own machine, by name.

    federation.toml      the configuration; every party has the same bytes
    <party>/             one folder for each party, on that party's machine and nowhere else
      party.toml         who this is: name, the configuration's path, a site's own data
      pins.toml          what it believes: everybody's identity keys, plan digest
      identity.pem       secret: Ed25519 key that signs its messages and its ledger (PKCS#8, 0600)
      owner.pem          secret: Ed25519 key that signs what the owner approves (0600); may be
                         encrypted, and kept elsewhere: no process that serves reads it
      ledger.sqlite      a site's privacy ledger; at the coordinator, the record of its runs
      ledger.records     a site's own: keyed hashes of its records, to recognise them (0600)
      samples/           a site's own, where `party.toml` asks for it: what each round sampled,
                         sealed for its owner, until the run's end
      openings.sqlite    secret: opener only (0600): what was opened, for good; and the key of each
                         run, until it is erased
      checkpoints.sqlite coordinator only: checkpoints of the sites' ledgers that it keeps
      openings-checkpoints.sqlite   the same of whoever opens; a site keeps others' in its ledger
      evaluated.safetensors  public: the opened model whose evaluation its owner approved last
      out/               coordinator only: models, reports, bundles, a folder for each run
      flower/            what Flower's parts of this party need: FLWR_HOME, node key, certificates

A folder of this kind is the only argument that starts a party. Its files are written whole or not
at all; secrets can be read by their owner only. How pins get to a party is the institutions'
business (a call, a signed letter): whoever writes `pins.toml` decides whom it believes.

A local run keeps the same folder for each of its parties (`privagg.party.local`). One person acts
for all of them there: they have no pins, and models and reports lie beside them.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from privagg.durable import write_whole
from privagg.errors import ConfigError, validation_faults
from privagg.identity.keys import Identity, Roster, check_public_hex
from privagg.training.declared import DeviceName, ModelSpec
from privagg.training.tablefile import Database, TableFile

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
IdentityKey = Annotated[Hex64, AfterValidator(check_public_hex)]
"""An Ed25519 public key under which a signature means something."""
PartyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class PartyFileModel(BaseModel):
    """A small file of a party: unknown keys are errors, and no error repeats what it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PartyFile(PartyFileModel):
    """`party.toml`: who this is.

    Args:
        name: as it stands in the configuration; or `coordinator`, `key-holder`.
        federation: path of the configuration, relative to the party's folder.
        data: a site's own table, images or data-set factory, in place of the configuration's;
            a path is relative to the party's folder.
        labels: path of the images' labels.
        network: a network of the site's own, in place of the configuration's; a path is relative
            to the party's folder.
        file: how the site's table is written; its own matter, which no other party learns.
        database: a query in place of the table's file; likewise.
        accept_findings: the owner knows what `privagg check` finds in the records and takes part
            with them as they are.
        device: where this site trains: "auto" (CUDA where the test of records apart passes on it,
            else the CPU), "cpu", "cuda" or "mps".
        samples_for: the owner's public sealing key, for which the site keeps each round's sampled
            records until the run's end (`privagg.party.samples`); empty, it keeps nothing.
        samples_signed: the owner's Ed25519 signature of it (hex), without which nothing is kept.
    """

    name: PartyName
    federation: str = "../federation.toml"
    data: str | None = None
    labels: str | None = None
    network: str | ModelSpec | None = None
    file: TableFile | None = None
    database: Database | None = None
    accept_findings: bool = False
    device: DeviceName = "auto"
    samples_for: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    samples_signed: str = Field(default="", pattern=r"^([0-9a-f]{128})?$")


class PinsFile(PartyFileModel):
    """`pins.toml`: what a party believes because its owner wrote it down.

    Args:
        plan_digest: SHA-256 (hex) of the plan that it takes part in.
        configuration: SHA-256 (hex) of the configuration's bytes: budgets and places of data stand
            there and not in the plan.
        roster: party -> Ed25519 public key (hex), its own included.
    """

    plan_digest: Hex64
    configuration: Hex64
    roster: dict[PartyName, IdentityKey] = Field(min_length=1)

    @property
    def pinned_roster(self) -> Roster:
        """The identity keys, for verifying messages."""
        return Roster(dict(self.roster))


_Model = TypeVar("_Model", bound=PartyFileModel)


@dataclass(frozen=True)
class PartyFolder:
    """The places in one party's folder.

    Args:
        root: the folder.
    """

    root: Path

    @property
    def party_file(self) -> Path:
        """Who this is."""
        return self.root / "party.toml"

    @property
    def pins_file(self) -> Path:
        """What it believes."""
        return self.root / "pins.toml"

    @property
    def identity_key(self) -> Path:
        """Secret: signs messages and the ledger."""
        return self.root / "identity.pem"

    @property
    def owner_key(self) -> Path:
        """Secret: signs approvals; read by `privagg approve` and `privagg recompute` alone."""
        return self.root / "owner.pem"

    @property
    def ledger(self) -> Path:
        """A site's ledger, or the coordinator's record."""
        return self.root / "ledger.sqlite"

    @property
    def known_records(self) -> Path:
        """Secret: the owner's memory of records, which recognises them under another name."""
        return self.root / "ledger.records"

    @property
    def samples(self) -> Path:
        """What is kept of the rounds' samples, sealed for the owner."""
        return self.root / "samples"

    @property
    def home(self) -> Path:
        """Secret: what an algorithm keeps of the site's own from round to round."""
        return self.root / "home"

    @property
    def openings(self) -> Path:
        """Secret of the party that opens: the keys of runs, and what it has opened."""
        return self.root / "openings.sqlite"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of the sites' ledgers that the coordinator keeps."""
        return self.root / "checkpoints.sqlite"

    @property
    def opener_checkpoints(self) -> Path:
        """Checkpoints of the sites' ledgers that the party that opens keeps."""
        return self.root / "openings-checkpoints.sqlite"

    @property
    def output(self) -> Path:
        """The coordinator's models, reports and bundles."""
        return self.root / "out"

    def run_folder(self, run: str) -> Path:
        """Where the coordinator keeps everything of one run."""
        return self.output / run

    @property
    def evaluated(self) -> Path:
        """The opened model that is evaluated here."""
        return self.root / "evaluated.safetensors"

    def keep_evaluated(self, model: Path, sha256: str) -> None:
        """Keep a copy of an opened model as the one that is evaluated here.

        Args:
            model: its file.
            sha256: of its bytes (hex), as approved.

        Raises:
            ConfigError: it cannot be read, or holds other bytes.
        """
        try:
            data = model.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {model}: {error.strerror}") from error
        if (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise ConfigError(
                f"{model} was changed meanwhile: its SHA-256 is {found}, not {sha256}; nothing "
                "was kept"
            )
        write_whole(self.evaluated, data)

    @property
    def flower(self) -> Path:
        """What Flower's parts of this party need."""
        return self.root / "flower"

    @classmethod
    def create(cls, root: Path, party: PartyFile) -> Self:
        """Make the folder (mode 0700) with its `party.toml` and a fresh identity key.

        What is there already is kept; but what `party` says in other words than `party.toml`
        does is a correction of it.

        Raises:
            ConfigError: it cannot be written, or is the folder of another party or federation.
        """
        made = cls(root)
        if not made.party_file.exists():
            try:
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"cannot make the folder {root}: {error.strerror}; choose another folder"
                ) from error
            said = party.model_dump(exclude_none=True, exclude_unset=True)
            made._write(said)
        else:
            made._correct(party)
        made.identity()
        return made

    def _correct(self, party: PartyFile) -> None:
        held, said = self.party(), party.model_dump(exclude_none=True, exclude_unset=True)
        if held.name != party.name:
            raise ConfigError(
                f"{self.root} is the folder of {held.name!r} already; choose another for "
                f"{party.name!r}: --folder"
            )
        before, now = (self.root / one.federation for one in (held, party))
        if "federation" in said and before.exists() and before.read_bytes() != now.read_bytes():
            raise ConfigError(
                f"{self.root} is the folder of {held.name!r} in the federation of {before}; choose "
                "another folder for another configuration: --folder"
            )
        if held.model_copy(update=said) != held:
            said = {**held.model_dump(exclude_none=True, exclude_unset=True), **said}
            self._write(said)

    def _write(self, said: Mapping[str, Any]) -> None:
        secret = "database" in said  # its URL may hold a password
        write_whole(self.party_file, toml_text(said).encode(), secret=secret)

    def party(self) -> PartyFile:
        """Who this is.

        Raises:
            ConfigError: no such file, or not one.
        """
        return _read(self.party_file, PartyFile)

    def pins(self) -> PinsFile:
        """What this party believes.

        Raises:
            ConfigError: it has not joined yet, or the file is not one.
        """
        if not self.pins_file.exists():
            raise ConfigError(
                f"{self.pins_file} is missing: {self.root.resolve().name} has not joined yet; once "
                f"everybody's cards are here: privagg deploy join {self.root} *.card"
            )
        return _read(self.pins_file, PinsFile)

    def pin(self, pins: PinsFile) -> None:
        """Write down what this party believes, in place of what it believed."""
        facts = pins.model_dump()
        write_whole(self.pins_file, toml_text(facts).encode())

    def identity(self) -> Identity:
        """This party's identity, its key made where it does not exist yet.

        Raises:
            ConfigError: the key was lost: others know it already, or its ledger is signed by it.
        """
        lost = not self.identity_key.exists()
        if lost and (self.pins_file.exists() or self.ledger.exists()):
            raise ConfigError(
                f"{self.identity_key} is missing, and another key would be nobody's that the "
                "ledger or the other parties know; bring it back from a backup, or begin a new "
                "folder with new cards"
            )
        return Identity.load_or_create(self.party().name, self.identity_key)

    @property
    def federation_file(self) -> Path:
        """The configuration that this party takes part in."""
        return self.root / self.party().federation

    def require_pinned_configuration(self) -> None:
        """Refuse a configuration that was changed since this party joined.

        Raises:
            ConfigError: other bytes than those pinned, or the file cannot be read.
        """
        path = self.federation_file
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        pinned = self.pins().configuration
        if found != pinned:
            raise ConfigError(
                f"{path} is another file (SHA-256 {found[:16]}...) than the one that "
                f"{self.party().name} joined with ({pinned[:16]}...); put the agreed file back, "
                "or, where everybody agreed on this one, make new cards and join again: "
                f"privagg deploy join {self.root} *.card --replace"
            )


def _read(path: Path, model: type[_Model]) -> _Model:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return model.model_validate(values)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path} is missing; every party's folder holds one (see `privagg deploy --help`)"
        ) from error
    except ValidationError as error:
        faults = validation_faults(error, whole="the file", values=False)
        raise ConfigError(f"{path}: {faults}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # ValueError: also 5,000 digits
        raise ConfigError(f"cannot read {path}: {error}") from error


def toml_text(values: Mapping[str, Any]) -> str:
    """Values, then tables of values, as TOML (a JSON string or list of them is one)."""
    plain = {name: v for name, v in values.items() if not isinstance(v, Mapping)}
    lines = [f"{name} = {_toml(v)}" for name, v in plain.items()]
    for name, table in values.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{name}]"]
            lines += [f"{_toml(key)} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # Beyond the basic plane JSON would write two surrogates, which TOML does not know.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
