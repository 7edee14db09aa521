"""The guard at a node: what arrives as an app may choose settings, but brings no code.

A Flower app travels as an archive that each node unpacks and runs beside its data: whoever submits
the run could have any program run there, and then no noise or encryption protects anything. Here
an archive is let in only if it carries no code and names privagg's own apps, which this machine's
owner installed; or if its owner read it and approved its SHA-256 (`privagg deploy approve`).
"""

from __future__ import annotations

import hashlib
import io
import os
import tomllib
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from privagg.errors import AppRefusedError

APPROVED = "PRIVAGG_APPROVED_APPS"
"""Environment variable: path of the list of approved apps."""
OWN_APPS = "privagg."
"""Flower takes nothing under a name but a ClientApp, and privagg has one that does as it should."""
MANIFEST = "pyproject.toml"
HARMLESS = frozenset({MANIFEST, "README.md", "LICENSE", ".info/CONTENT"})
MAX_MANIFEST_BYTES = 1 << 18


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
            if bundle.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
                raise AppRefusedError(f"the app's {MANIFEST} is larger than any that is needed")
            manifest = tomllib.loads(bundle.read(MANIFEST).decode())
    except AppRefusedError:
        raise
    except Exception as error:  # zipfile answers hostile bytes with many kinds, EOFError among them
        raise AppRefusedError(f"what arrived is no Flower app: {type(error).__name__}") from error
    reference = _client_app(manifest)
    if not reference.startswith(OWN_APPS):
        raise AppRefusedError(
            f"the app names {reference[:100]!r} and brings no code for it; only apps under "
            f"{OWN_APPS} are this machine's own"
        )
    return digest


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
    """Have every app that this process unpacks checked first.

    Raises:
        SystemExit: this release of Flower has no place for it; without it no app is started.
    """
    from flwr.supernode.runtime import run_clientapp

    program: Any = run_clientapp
    unpack: Callable[..., Path] | None = getattr(program, "install_from_fab", None)
    used = getattr(program.run_clientapp, "__code__", None)
    if unpack is None or used is None or "install_from_fab" not in used.co_names:
        raise SystemExit(
            "this release of flwr has no hook for privagg's guard; use flwr 1.41 or 1.42"
        )
    approved = read_approved(Path(os.environ.get(APPROVED, os.devnull)))

    def checked(archive: bytes, *arguments: Any, **options: Any) -> Path:
        check_app(archive, approved)
        return unpack(archive, *arguments, **options)

    program.install_from_fab = checked
