"""What an algorithm keeps at a site between rounds, durably, in the site's own folder.

    <party>/home/RUN/ROUND-ATTEMPT.safetensors        mode 0600; the last two rounds' of each run

Nothing of it is sent. It is as private as the records. A folder that is restored from an older copy
costs accuracy, and no privacy: every upload is bounded and noised whatever lies here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from privagg.durable import write_whole
from privagg.encoding.planned import RoundId
from privagg.errors import ConfigError
from privagg.programs.home import Arrays
from privagg.training.saving import tensor_bytes

_SUFFIX = ".safetensors"


class FolderHome:
    """A `Home` in a party's folder.

    Args:
        root: made when something is kept.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def attend(self, learner: object) -> None:
        """Let a learner keep its state here; one that has none is left alone."""
        if hasattr(learner, "home"):
            learner.home = self

    def load(self, run: str, before: int) -> Arrays | None:
        """See `Home.load`.

        Raises:
            ConfigError: what lies here is damaged.
        """
        earlier = [(place, path) for place, path in self._found(run) if place[0] < before]
        return _read(max(earlier)[1]) if earlier else None

    def last(self) -> Arrays | None:
        """What the latest run that kept something left; None where none did.

        Raises:
            ConfigError: as `load`.
        """
        runs = sorted(self._root.glob("*"), key=lambda path: path.stat().st_mtime)
        found = sorted(self._found(runs[-1].name)) if runs else []
        return _read(found[-1][1]) if found else None

    def save(self, round_id: RoundId, arrays: Arrays) -> None:
        """See `Home.save`; what is older than the round before is deleted.

        Raises:
            ConfigError: it cannot be written.
        """
        run, number, attempt = round_id
        path = self._root / run / f"{number}-{attempt}{_SUFFIX}"
        try:
            for place in (self._root, path.parent):
                place.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        write_whole(path, tensor_bytes(arrays), secret=True)
        kept = {at: old for at, old in self._found(run) if at[0] < number}
        for at, old in kept.items():
            if at[0] < max(kept)[0]:
                old.unlink(missing_ok=True)

    def forget(self, run: str) -> None:
        """Delete what was kept of a run."""
        shutil.rmtree(self._root / run, ignore_errors=True)

    def _found(self, run: str) -> Iterator[tuple[tuple[int, int], Path]]:
        for path in (self._root / run).glob(f"*{_SUFFIX}"):
            number, _, attempt = path.name.removesuffix(_SUFFIX).partition("-")
            if number.isdecimal() and attempt.isdecimal():
                yield (int(number), int(attempt)), path


def _read(path: Path) -> Arrays:
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"cannot read {path}, which this site keeps between rounds: {error}; delete it, and "
            "the site goes on as if it began"
        ) from error
