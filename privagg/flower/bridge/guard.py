"""The guard at a node: what arrives as an app may choose settings, but brings no code.

A Flower app travels as an archive that each node unpacks and runs beside its data: whoever submits
the run could have any program run there, and then no noise or encryption protects anything. Here
an archive is let in only if it carries no code and names privagg's own apps, which this machine's
owner installed; or if its owner read it and approved its SHA-256 (`privagg deploy approve`).

What was checked is what runs: the archive is unpacked to a folder of its own and the app is loaded
from there. Flower itself would load the folder that unverified names (id, version, hash) point to.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tomllib
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from privagg.errors import AppRefusedError
from privagg.flower.bridge.appfolders import fresh_folder

APPROVED = "PRIVAGG_APPROVED_APPS"
"""Environment variable: path of the list of approved apps."""
OWN_APPS = "privagg."
"""Flower takes nothing under a name but a ClientApp, and privagg has one that does as it should."""
MANIFEST = "pyproject.toml"
HARMLESS = frozenset({MANIFEST, "README.md", "LICENSE", ".info/CONTENT"})
MAX_APP_BYTES = 1 << 18
"""Of all files of an app without code, unpacked."""
_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_+-]|\.(?!\.)){0,99}")


def check_app(archive: bytes, approved: Collection[str]) -> str:
    """Let an app in, or refuse it before any of it is unpacked.

    Args:
        archive: the app as Flower carries it (a zip, "FAB").
        approved: SHA-256 (hex) of archives whose code the owner approved.

    Returns:
        The archive's SHA-256 (hex).

    Raises:
        AppRefusedError: it brings code that is not approved, or is no app at all.
    """
    digest = hashlib.sha256(archive).hexdigest()
    if digest in approved:
        return digest
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as bundle:
            names = bundle.namelist()
            foreign = sorted(set(names) - HARMLESS)
            if foreign or len(set(names)) < len(names):
                raise AppRefusedError(
                    f"the app brings files of its own ({', '.join(foreign[:3]) or 'twice the same'}"
                    f"); whoever answers for this machine's data may approve it after reading it: "
                    f"privagg deploy approve FOLDER {digest}"
                )
            if sum(file.file_size for file in bundle.infolist()) > MAX_APP_BYTES:
                raise AppRefusedError(
                    f"the app unpacks to more than {MAX_APP_BYTES} bytes, larger than any without "
                    "code of its own"
                )
            manifest = tomllib.loads(bundle.read(MANIFEST).decode())
    except AppRefusedError:
        raise
    except Exception as error:  # zipfile answers hostile bytes with many kinds, EOFError among them
        raise AppRefusedError(f"what arrived is no Flower app: {type(error).__name__}") from error
    require_plain_names(manifest)
    reference = _client_app(manifest)
    if not reference.startswith(OWN_APPS):
        raise AppRefusedError(
            f"the app names {reference[:100]!r} and brings no code for it; only apps under "
            f"{OWN_APPS} are this machine's own"
        )
    return digest


def require_plain_names(manifest: dict[str, Any]) -> None:
    """Refuse names that would be paths: Flower joins them to the folder that it unpacks to.

    Raises:
        AppRefusedError: one would be.
    """
    project, tool = manifest.get("project", {}), manifest.get("tool", {})
    flwr = tool.get("flwr", {}) if isinstance(tool, dict) else {}
    app = flwr.get("app", {}) if isinstance(flwr, dict) else {}
    tables = [table for table in (project, app) if isinstance(table, dict)]
    for name in (table.get(key) for table in tables for key in ("name", "version", "publisher")):
        if name is not None and not (isinstance(name, str) and _PLAIN.fullmatch(name)):
            raise AppRefusedError(f"the app's {MANIFEST} has the name {str(name)[:100]!r}")


def _client_app(manifest: dict[str, Any]) -> str:
    try:
        return str(manifest["tool"]["flwr"]["app"]["components"]["clientapp"])
    except (KeyError, TypeError) as error:
        raise AppRefusedError(f"the app's {MANIFEST} names no clientapp") from error


def read_approved(path: Path) -> frozenset[str]:
    """The SHA-256 values in a list of approved apps; what follows a value on its line is a remark.

    Raises:
        AppRefusedError: the list is there but cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise AppRefusedError(f"cannot read the list of approved apps {path}: {error}") from error
    return frozenset(line.split()[0] for line in lines if line.strip() and line[0] != "#")


def install() -> None:
    """Have every app that this process unpacks checked first, and loaded from where it lies then.

    The list of approved apps is read for each app, so that an approval that is withdrawn holds at
    once, also for code that was unpacked while it stood.

    Raises:
        SystemExit: this release of Flower has no place for it; without it no app is started.
    """
    from flwr.supercore.utils import get_flwr_home
    from flwr.supernode.runtime import run_clientapp

    program: Any = run_clientapp
    used = getattr(getattr(program.run_clientapp, "__code__", None), "co_names", ())
    if not all(hasattr(program, hook) and hook in used for hook in _HOOKS):
        raise SystemExit(
            "this release of flwr has no hook for privagg's guard; use flwr 1.41 or 1.42"
        )
    approved = Path(os.environ.get(APPROVED, os.devnull))
    checked = CheckedApps(
        approved,
        get_flwr_home() / "checked",
        program.install_from_fab,
        program.get_load_client_app_fn,
    )
    program.install_from_fab = checked.unpack
    program.get_project_dir = checked.folder
    program.get_load_client_app_fn = checked.loader


_HOOKS = ("install_from_fab", "get_project_dir", "get_load_client_app_fn")


class CheckedApps:
    """In the place of Flower's unpacking and finding of apps: only what was checked is found.

    Args:
        approved: the list of approved apps.
        place: where apps are unpacked, each to a folder of its own.
        unpack: Flower's own: archive, folder, skip_prompt -> where the app lies.
        loader: Flower's own: makes what loads an app.
    """

    def __init__(
        self, approved: Path, place: Path, unpack: Callable[..., Path], loader: Callable[..., Any]
    ) -> None:
        self._approved, self._place = approved, place
        self._unpack, self._loader = unpack, loader
        self._folder: Path | None = None

    def unpack(self, archive: bytes, *_: Any, **__: Any) -> Path:
        """Check an archive and unpack it to a fresh folder, which goes with this process.

        Raises:
            AppRefusedError: it may not run here, or its names lead out of the folder.
        """
        self._folder = None
        check_app(archive, read_approved(self._approved))
        fresh = fresh_folder(self._place)
        found = self._unpack(archive, fresh, skip_prompt=True).resolve()
        if not found.is_relative_to(fresh):
            raise AppRefusedError("the app's names lead out of the folder that it is unpacked to")
        self._folder = found
        return found

    def folder(self, *_: str) -> Path:
        """Where the checked app lies, whatever names the run gives.

        Raises:
            AppRefusedError: none was checked.
        """
        if self._folder is None:
            raise AppRefusedError("no app was checked; nothing is loaded")
        return self._folder

    def loader(self, *_: Any, **__: Any) -> Any:
        """Flower's loader of the checked app; it refuses a run of another id or version."""
        return self._loader(default_app_ref="", app_path=str(self.folder()), multi_app=True)
