"""A section of a document, done: each of its commands typed in a fresh folder by a fresh user.

A story begins in an empty folder with an empty home, and answers yes where it is asked. Everything
runs as it stands, in reading order, and must end with exit code 0, unless a director
(`tests/documents/directors.py`) says otherwise; directors add what the text leaves to the reader,
and hold the outcome against the text. A command that is new in a document is therefore run, and
fails by document and line if it does not work.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.commands import Answer, call
from tests.documents.reading import ROOT, Block, Command, Place, commands_of, read

DRAWN = ("mermaid",)
"""Blocks that are pictures: there is nothing in them to do."""
FOREVER = (["privagg", "deploy", "up"], ["privagg", "deploy", "start"])
START_SECONDS = 240.0

Item = Command | Block


class Story:
    """One section while it is told.

    Args:
        document: its path below the repository's root.
        heading: the section's.
        root: an empty folder, for the reader's folder and home.

    Attributes:
        folder: where commands are typed.
        home: the reader's home.
    """

    def __init__(self, document: str, heading: str, root: Path) -> None:
        self.document, self.heading = document, heading
        self.folder, self.home = root / "work", root / "home"
        self.folder.mkdir()
        self.home.mkdir()
        self._left = list(items(document, heading))
        self._running: list[tuple[subprocess.Popen[bytes], Path]] = []

    # --- what is typed ------------------------------------------------------------------------

    def until(self, begins: str, code: int = 0, instead: Mapping[str, str] | None = None) -> Answer:
        """Do everything up to the next command that begins so; its answer.

        Args:
            begins: the command's first words.
            code: how that command, the last, is to end.
            instead: word of that command -> what it stands for.
        """
        while self._left:
            item = self._left.pop(0)
            if isinstance(item, Command) and f"{item.text} ".startswith(f"{begins} "):
                words = tuple((instead or {}).get(word, word) for word in item.words)
                return self.do(Command(item.place, words), code)
            self._play(item)
        raise AssertionError(f"{self.document}: no command `{begins} …` follows in its section")

    def python(self) -> dict[str, object]:
        """Do everything up to the next block of Python, and that; the names that it leaves."""
        while self._left:
            item = self._left.pop(0)
            if isinstance(item, Block) and item.language == "python":
                return run_python(item, self.folder, self.home)
            self._play(item)
        raise AssertionError(f"{self.document}: no block of Python follows in its section")

    def rest(self) -> None:
        """Do everything that is left."""
        while self._left:
            self._play(self._left.pop(0))

    def said(
        self, text: str, *more: str, code: int = 0, instead: Mapping[str, str] | None = None
    ) -> Answer:
        """Do a command that a sentence of the section names.

        Args:
            text: as it stands there.
            more: words that the sentence leaves out.
            code: how it is to end.
            instead: word of the sentence -> what it stands for.
        """
        for each in read(ROOT / self.document).inline_commands():
            if each.text == text and each.place.heading == self.heading:
                words = ((instead or {}).get(word, word) for word in each.words)
                return self.do(Command(each.place, (*words, *more)), code)
        raise AssertionError(f"{self.document} does not say `{text}` under {self.heading!r}")

    def type(self, text: str, code: int = 0) -> Answer:
        """Do a command of the director's own."""
        return self.do(Command(Place("a director", "", 0), tuple(shlex.split(text))), code)

    def take(self, begins: str) -> Command:
        """The next command, without doing it, if it begins so."""
        item = self._left.pop(0)
        assert isinstance(item, Command), item
        assert item.text.startswith(begins), f"{item} comes before `{begins}`"
        return item

    def left_to(self, test: str, text: str) -> None:
        """Pass over the next command, which takes too long: a test by that name does its work."""
        self.take(text)
        sources = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
        assert any(f"def {test}(" in source for source in sources), f"{test}, of `{text}`, is gone"

    def shown_in(self, document: str) -> None:
        """Pass over the commands that are left: they are in that document too, and done there."""
        there = {command.text for command in read(ROOT / document).commands()}
        assert [str(item) for item in self._left if getattr(item, "text", "") not in there] == []
        self._left.clear()

    def block(self, language: str) -> str:
        """The text of the section's next block in a language, which the director makes use of."""
        for item in self._left:
            if isinstance(item, Block) and item.language == language:
                self._left.remove(item)
                return item.text
        raise AssertionError(f"{self.document}: no block of {language} is left in its section")

    def do(self, command: Command, code: int = 0, where: Path | None = None) -> Answer:
        """Do one command, and fail by its place unless it ends as it is to end."""
        words = list(command.words)
        assert words[:3] not in FOREVER, f"{command} runs until Ctrl-C: its director starts it"
        answer = run_words(words, where or self.folder, self.home)
        assert answer.code == code, f"{command} ended with {answer.code}: {answer.err[-2000:]}"
        return answer

    # --- another terminal ---------------------------------------------------------------------

    def start(self, begins: str, ready: str) -> None:
        """Start the next command, which begins so, and go on once it has printed `ready`."""
        self.open(self.take(begins))
        self.wait(ready)

    def open(self, command: Command, where: Path | None = None) -> None:
        """Start a command in another terminal."""
        words = command.words
        output = self.folder.parent / f"terminal-{len(self._running)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*python_of(words[0]), *words[1:]],
                cwd=where or self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((process, output))

    def wait(self, *ready: str) -> None:
        """Go on once every other terminal shows one of these.

        Raises:
            AssertionError: one ended, or stays silent.
        """
        until = time.monotonic() + START_SECONDS
        for process, output in self._running:
            while not any(text in (said := output.read_text()) for text in ready):
                assert process.poll() is None, f"{process.args} ended: {said}"
                assert time.monotonic() < until, f"{process.args} never said {ready!r}: {said}"
                time.sleep(0.1)

    def stop(self) -> None:
        """Ctrl-C in every other terminal.

        Raises:
            AssertionError: one did not end, or not with exit code 0.
        """
        for process, _ in self._running:
            process.send_signal(signal.SIGINT)
        for process, output in self._running:
            assert process.wait(START_SECONDS) == 0, output.read_text()
        self._running.clear()

    def close(self) -> None:
        """Let nothing run on, however the story went."""
        for process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        for process, _ in self._running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), "PYTHONPATH": str(ROOT)}

    def _play(self, item: Item) -> None:
        if isinstance(item, Command):
            self.do(item)
        elif item.language == "python":
            run_python(item, self.folder, self.home)
        else:
            raise AssertionError(f"{item.place}: no test makes use of this {item.language} block")


def items(document: str, heading: str) -> Iterator[Item]:
    """What there is to do in a section: commands one by one, blocks of other languages whole."""
    for block in read(ROOT / document).blocks:
        if block.place.heading != heading or block.language in DRAWN:
            continue
        commands = list(commands_of(block))
        yield from commands or [block]


# --- programs -------------------------------------------------------------------------------------


def run_words(words: Sequence[str], where: Path, home: Path) -> Answer:
    """Do what a shell would with these words, for the few programs that documents name."""
    words = list(words)
    if ">" in words:
        into = where / words.pop()
        words.remove(">")
        answer = run_words(words, where, home)
        into.write_text(answer.out)
        return answer
    words = [found for word in words for found in expanded(word, where)]
    match words:
        case ["privagg", *rest]:
            return call(*rest, where=where, answers="y\ny\n", HOME=str(home))
        case ["flwr", *rest]:
            environment = {**os.environ, "HOME": str(home)}
            made = subprocess.run(
                [*python_of("flwr"), *rest],
                cwd=where,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            return Answer(made.returncode, made.stdout, made.stdout + made.stderr)
        case ["make", target]:
            return make(target, where, home)
        case [".", path]:
            assert path == f"{VENV}/bin/activate", f"`make` sets up {VENV}"
            return Answer(0, "", "")
        case ["python", script, *rest] if script.endswith(".py"):
            return run_script(where / script, rest, where, home)
    raise AssertionError(f"no test knows how to run `{' '.join(words)}`")


def expanded(word: str, where: Path) -> list[str]:
    """A word with a star as the files that it stands for."""
    found = sorted(str(path.relative_to(where)) for path in where.glob(word)) if "*" in word else []
    return found or [word]


VENV = next(
    line.split(":=")[1].strip()
    for line in (ROOT / "Makefile").read_text().splitlines()
    if line.startswith("VENV :=")
)


def make(target: str, where: Path, home: Path) -> Answer:
    """`make TARGET`: its recipe is read, and what it does with privagg itself is done.

    Setting up a virtual environment, and the tests that this one is among, are left out.
    """
    words = ["make", "--dry-run", "--always-make", target]
    rehearsed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    for line in rehearsed.stdout.splitlines():
        if line.startswith(f"{VENV}/bin/privagg "):
            answer = run_words(["privagg", *shlex.split(line)[1:]], where, home)
            if answer.code:
                return answer
    return Answer(rehearsed.returncode, rehearsed.stdout, rehearsed.stderr)


def python_of(program: str) -> list[str]:
    """How this interpreter runs a program of the documents."""
    return {
        "privagg": [sys.executable, "-m", "privagg"],
        "python": [sys.executable],
        "flwr": [str(Path(sys.executable).parent / "flwr")],
    }[program]


@contextlib.contextmanager
def at_home(where: Path, home: Path, words: Sequence[str] = ()) -> Iterator[None]:
    """In a folder, with a home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.setenv("HOME", str(home))
        patch.setattr(sys, "argv", list(words))
        yield


def run_script(path: Path, words: Sequence[str], where: Path, home: Path) -> Answer:
    """A script in this process, as its interpreter's main module."""
    with at_home(where, home, [str(path), *words]):
        runpy.run_path(str(path), run_name="__main__")
    return Answer(0, "", "")


def run_python(block: Block, where: Path, home: Path, **names: object) -> dict[str, object]:
    """A block of Python in this process; the names that it leaves."""
    made = {"__name__": "__main__", **names}
    source = "\n" * (block.place.line - 1) + block.text
    with at_home(where, home):
        exec(compile(source, str(ROOT / block.place.document), "exec"), made)
    return made


Director = Callable[[Story], None]
