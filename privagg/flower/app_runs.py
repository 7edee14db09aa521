"""A Flower app of one's own, submitted to a deployment: its archive, who has approved it, its run.

Every node runs only what its owner approved by the archive's SHA-256. The app's own ServerApp
begins the run, under `private_grid`, and so gives it its name.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from privagg.errors import AppRefusedError, ConfigError, DeploymentError
from privagg.flower.deploy.folder import FlowerFolder
from privagg.flower.deploy.superlink import log_end, state_of, submit
from privagg.flower.lead import FLOWER_RUN_NAME, RESULT_NAME, ROUNDS_NAME, read_lines
from privagg.flower.submit import POLL_SECONDS, STATUS_POLLS, Submitted

MANIFEST = "pyproject.toml"
RESUME_KEY = "resume"
"""Setting of an app that `private_grid(grid, resume=...)` is called with."""


@dataclass(frozen=True)
class AppArchive:
    """A Flower app as it travels.

    Args:
        data: the archive ("FAB").
        source: where it came from, for messages.
    """

    data: bytes
    source: Path

    @classmethod
    def at(cls, path: Path) -> AppArchive:
        """The archive of an app.

        Args:
            path: the app's folder, or its archive.

        Raises:
            ConfigError: neither.
            AppRefusedError: its names are paths.
        """
        from privagg.flower.bridge.archives import build_archive
        from privagg.flower.bridge.guard import require_plain_names

        try:
            data = build_archive(path) if path.is_dir() else path.read_bytes()
            found = cls(data, path)
            require_plain_names(found._manifest)
            _ = found.settings, found.name
        except AppRefusedError:
            raise
        except Exception as error:  # hostile bytes are answered with many kinds
            why = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"{path} holds no Flower app ({why[:300]}); name the folder with the app's "
                f"{MANIFEST}, or its archive (.fab)"
            ) from error
        return found

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the archive, by which owners approve it."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Names of the files in it."""
        with zipfile.ZipFile(io.BytesIO(self.data)) as bundle:
            return tuple(bundle.namelist())

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        with zipfile.ZipFile(io.BytesIO(self.data)) as bundle:
            return tomllib.loads(bundle.read(MANIFEST).decode())

    @property
    def name(self) -> str:
        """The app's."""
        return str(self._manifest["project"]["name"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """Names and defaults of the app's own settings."""
        app = self._manifest["tool"]["flwr"]["app"]
        return dict(app.get("config", {}))


def unapproved(archive: AppArchive, nodes: Mapping[str, FlowerFolder]) -> list[str]:
    """Parties whose owners have not approved an app.

    Args:
        archive: the app's.
        nodes: party -> its folder, of those that lie on this machine.
    """
    from privagg.flower.bridge.guard import read_approved

    return [
        name
        for name, folder in nodes.items()
        if archive.sha256 not in read_approved(folder.at("approved.txt"))
    ]


def submit_app(
    folder: FlowerFolder,
    archive: AppArchive,
    *,
    settings: str = "",
    resume: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Submitted:
    """Submit an app to the SuperLink of a deployment, and wait until its run has begun.

    Args:
        folder: the coordinator's, whose SuperLink is running.
        archive: the app's.
        settings: for the app, as `flwr run --run-config` takes them.
        resume: identifier of a run to resume.
        sleep: lets seconds pass.

    Raises:
        ConfigError: there is no run to resume, or the app has no setting for it.
        DeploymentError: the SuperLink cannot be reached, or the app ended without beginning a run.
    """
    from privagg.flower.bridge.archives import unpack_archive

    if resume is not None:
        _prepare_resuming(folder, archive, resume)
    reported = 0 if resume is None else _reported(folder, resume)
    with tempfile.TemporaryDirectory(prefix="privagg-app-") as place:
        unpacked, packed = Path(place) / "app", Path(place) / "app.fab"
        packed.write_bytes(archive.data)
        unpack_archive(archive.data, unpacked)
        own = {} if resume is None else {RESUME_KEY: resume}
        number = submit(folder, unpacked, own, more=settings, archive=packed)
    run = _run_of(folder, number, sleep)
    return Submitted(folder, run, number, reported)


def _prepare_resuming(folder: FlowerFolder, archive: AppArchive, resume: str) -> None:
    output = folder.party.run_folder(resume)
    if not output.is_dir():
        raise ConfigError(f"there is no run {resume!r} to resume in {folder.party.output}")
    if RESUME_KEY not in archive.settings:
        raise ConfigError(
            f'the app in {archive.source} has no setting {RESUME_KEY!r}: add {RESUME_KEY} = "" '
            f"under [tool.flwr.app.config] in its {MANIFEST}, and hand it on: private_grid(grid, "
            f'resume=context.run_config["{RESUME_KEY}"])'
        )
    (output / RESULT_NAME).unlink(missing_ok=True)


def _reported(folder: FlowerFolder, run: str) -> int:
    return len(read_lines(folder.party.run_folder(run) / ROUNDS_NAME, 0))


def _run_of(folder: FlowerFolder, number: int, sleep: Callable[[float], None]) -> str:
    """The name that the app's own process gave to the run, once it has begun."""
    polls, over = 0, ""
    while True:
        for note in folder.party.output.glob(f"*/{FLOWER_RUN_NAME}"):
            if note.read_text(encoding="ascii") == str(number):
                return note.parent.name
        if over:
            raise DeploymentError(
                f"Flower ended run {number} ({over}) before the app began a run under "
                f"private_grid; nothing was spent. The end of its log: {log_end(folder, number)}"
            )
        polls += 1
        if polls % STATUS_POLLS == 0:
            state = state_of(folder, number)
            over = f"{state.status} {state.details}".strip() if state.over else ""
        sleep(POLL_SECONDS)
