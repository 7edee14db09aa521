"""`demo`: three hospitals on this machine, from their tables to a report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from privagg.cli import console
from privagg.cli.asking import ask_here
from privagg.cli.training import AsJson, missing, open_federation, packaged, train, write_text
from privagg.errors import ConfigError

DEMO_OWNER = "whoever started the demo"

_SCHEME = re.compile(r'(?m)^scheme = "([^"]*)"')


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for data, model, ledgers and report.")
    ] = Path("out"),
    scheme: Annotated[
        str, typer.Option(help="ckks, bfv, masked, paillier or plaintext (unsafe).")
    ] = "ckks",
    as_json: AsJson = False,
) -> None:
    """Three hospitals ask two questions, then train one breast-cancer model; nothing is downloaded.

    Writes the hospitals' tables and the configuration into the output folder, so that you can
    change it, approve it and run it again.
    """
    path = write_demo(output, scheme=scheme)
    if not as_json:
        console.note(
            f"the configuration is {path}; the demo approves it for its own three hospitals. "
            f"Change it, then `privagg approve {path} --all-sites` and `privagg run {path}`"
        )
    federation = open_federation(path)
    federation.approve(who=DEMO_OWNER, why="privagg demo", job="questions")
    ask_here(federation, as_json=as_json)
    federation.approve(who=DEMO_OWNER, why="privagg demo")
    train(federation, as_json=as_json)


def write_demo(folder: Path, *, scheme: str = "ckks") -> Path:
    """Write the demo's tables and configuration; return the configuration's path.

    A second demo in the same folder is a new run on the same data: its ledgers are kept, and the
    budget in it lasts for a few such runs.

    Raises:
        ConfigError: somebody has changed the configuration, which is not replaced.
        MissingDependencyError: what training needs is not installed.
    """
    path, demo = folder / "breast-cancer.toml", packaged("demo.toml")
    if path.exists() and not _is_demo(path.read_text(encoding="utf-8"), demo):
        raise ConfigError(
            f"{path} was changed since the demo wrote it, and is not replaced: approve and run it "
            f"(privagg approve {path} --all-sites; privagg run {path}), or choose another folder "
            "for the demo (--output)"
        )
    try:
        from privagg.training.datasets import write_breast_cancer
    except ImportError as error:
        raise missing(error) from error
    write_breast_cancer(folder / "data")
    return write_text(path, _of_scheme(scheme, demo))


def _is_demo(text: str, demo: str) -> bool:
    found = _SCHEME.search(text)
    return found is not None and text == _of_scheme(found[1], demo)


def _of_scheme(scheme: str, demo: str) -> str:
    """The demo with another scheme; who opens masked sums follows from the scheme."""
    text = _SCHEME.sub(f'scheme = "{scheme}"', demo)
    return re.sub(r"(?m)^custody = .*\n", "", text) if scheme == "masked" else text
