"""Writes the three sites' texts and the transformer that everybody starts from.

python examples/adapters/prepare.py

The texts are what installed packages say of themselves in their docstrings, up to 32 words each,
and the class is the section that they stand in: parameters, returns, notes or examples. To the
sites belong those of numpy, pandas, scipy and scikit-learn; whole files are left out for the
evaluation. The transformer was trained without privacy on those of other packages, taken as public.
"""

from __future__ import annotations

import argparse
import ast
import re
import zlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

OUT = Path(__file__).resolve().parent / "out"
WORDS, LEAST_WORDS, VOCABULARY = 32, 8, 4096
OPEN = ("networkx", "matplotlib", "sympy", "mpl_toolkits")
CLOSED = ("numpy", "pandas", "scipy", "sklearn")
SECTIONS = ("Parameters", "Returns", "Notes", "Examples")
SITES = {"north": 1600, "south": 1200, "west": 800}
PUBLIC = 1000
HEADING = re.compile(r"^ *([A-Z][A-Za-z ]+)\n *[-=]{3,} *$", re.MULTILINE)
Piece = tuple[list[int], int]


def number(word: str) -> int:
    """A word's number from 1 on; those that meet share one."""
    return 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)


def pieces(text: str) -> Iterator[Piece]:
    """The sections of a docstring in pieces of 32 words, each with its class."""
    parts = HEADING.split(text)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in SECTIONS:
            numbers = [number(word) for word in re.findall(r"[a-z]+", body.lower())]
            for at in range(0, len(numbers) - LEAST_WORDS + 1, WORDS):
                piece = numbers[at : at + WORDS]
                yield piece + [0] * (WORDS - len(piece)), SECTIONS.index(name)


def files(packages: Sequence[str]) -> Iterator[list[Piece]]:
    """For each of the packages' files, in a shuffled order, its docstrings' pieces."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    places = [find_spec(name).submodule_search_locations for name in packages]  # type: ignore[union-attr]
    folders = [Path(next(iter(place))) for place in places]  # type: ignore[arg-type]
    paths = [
        path for folder in folders for path in sorted(folder.rglob("*.py"))
        if "test" not in str(path.relative_to(folder))
    ]  # fmt: skip
    for at in np.random.default_rng(1).permutation(len(paths)):
        nodes = [n for n in ast.walk(ast.parse(paths[at].read_bytes())) if isinstance(n, kinds)]
        yield [piece for node in nodes for piece in pieces(ast.get_docstring(node) or "")]


def labelled(
    packages: Sequence[str], each: int, held_out: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Tokens `(n, 32)`, classes `(n,)`, and which are of files that are held out, `(n,)`."""
    found: list[tuple[list[int], int, bool]] = []
    wanted = {apart: [count] * len(SECTIONS) for apart, count in ((True, held_out), (False, each))}
    for file in files(packages):
        apart = any(wanted[True])
        for tokens, label in file:
            if wanted[apart][label]:
                wanted[apart][label] -= 1
                found.append((tokens, label, apart))
    rows, classes, out = zip(*found, strict=True)
    return np.array(rows, np.int32), np.array(classes, np.int64), np.array(out)


def pretrained(steps: int) -> BertForSequenceClassification:
    """A transformer trained for so many steps on public texts, with a new head for the sites'."""
    tokens, classes, _ = labelled(OPEN, 1500)
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=WORDS, num_labels=len(SECTIONS),
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x, y = torch.from_numpy(tokens).long(), torch.from_numpy(classes)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        found = model(input_ids=x[rows], attention_mask=(x[rows] != 0).long()).logits
        optimizer.zero_grad()
        functional.cross_entropy(found, y[rows]).backward()
        optimizer.step()
    model.classifier = nn.Linear(model.config.hidden_size, len(SECTIONS))
    return model


def prepare(steps: int = 600) -> None:
    """Write the base and every party's texts into `out/`."""
    pretrained(steps).save_pretrained(OUT / "base")
    count, own = sum(SITES.values()) // len(SECTIONS), PUBLIC // len(SECTIONS)
    tokens, classes, apart = labelled(CLOSED, count, own)
    (OUT / "data").mkdir(parents=True, exist_ok=True)
    np.savez(OUT / "data" / "public.npz", tokens=tokens[apart], classes=classes[apart])
    order = np.random.default_rng(1).permutation(np.flatnonzero(~apart))
    parts = np.split(order, np.cumsum(list(SITES.values()))[:-1])
    for name, rows in zip(SITES, parts, strict=True):
        np.savez(OUT / "data" / f"{name}.npz", tokens=tokens[rows], classes=classes[rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600, help="of the training on public texts")
    prepare(parser.parse_args().steps)
