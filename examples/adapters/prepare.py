"""Writes the three sites' texts and the transformer that everybody starts from.

python examples/adapters/prepare.py

The texts are what installed packages say of themselves in their docstrings, 32 words each. To the
sites belong those of numpy, pandas, scipy and scikit-learn, and the class is which; whole files are
left out for the evaluation. The transformer was trained without privacy on others, taken as public:
it tells apart six other packages. Words that name a package are taken out.
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
WORDS, VOCABULARY = 32, 4096
OPEN = ("torch", "sympy", "networkx", "matplotlib", "sqlalchemy", "pyarrow")
CLOSED = ("numpy", "pandas", "scipy", "sklearn")
SITES = {"north": 1600, "south": 1200, "west": 800}
PUBLIC = 1000
NAMING = re.compile(r"\b(np|pd|plt|nx|sa|pa|scikit|tensor|" + "|".join((*OPEN, *CLOSED)) + r")\b")


def number(word: str) -> int:
    """A word's number from 1 on; those that meet share one."""
    return 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)


def pieces(package: str) -> Iterator[list[list[int]]]:
    """For each of a package's files, in a shuffled order, its docstrings in pieces of 32 words."""
    folder = Path(str(find_spec(package).origin)).parent  # type: ignore[union-attr]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    paths = [p for p in sorted(folder.rglob("*.py")) if "test" not in str(p.relative_to(folder))]
    for at in np.random.default_rng(len(paths)).permutation(len(paths)):
        path, found = paths[at], []
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = (ast.get_docstring(node) or "") if isinstance(node, kinds) else ""
            words = re.findall(r"[a-z]+", NAMING.sub(" ", text.lower()))
            numbers = [number(word) for word in words]
            found += [numbers[at : at + WORDS] for at in range(0, len(numbers) - 15, WORDS)]
        if found:
            yield found


def labelled(
    packages: Sequence[str], each: int, held_out: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Tokens `(n, 32)`, classes `(n,)`, and which are of files that are held out, `(n,)`."""
    rows, classes, apart = [], [], []
    for label, package in enumerate(packages):
        wanted = {False: each, True: held_out}
        for file in pieces(package):
            out = wanted[True] > 0
            taken = file[: min(40, wanted[out])]
            wanted[out] -= len(taken)
            rows += [piece + [0] * (WORDS - len(piece)) for piece in taken]
            classes += [label] * len(taken)
            apart += [out] * len(taken)
            if not wanted[False]:
                break
    return np.array(rows, np.int32), np.array(classes, np.int64), np.array(apart)


def pretrained(steps: int) -> BertForSequenceClassification:
    """A transformer trained for so many steps on public texts, with a new head for the sites'."""
    tokens, classes, _ = labelled(OPEN, 1500)
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=WORDS, num_labels=len(OPEN),
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
    model.classifier = nn.Linear(model.config.hidden_size, len(CLOSED))
    model.config.num_labels = len(CLOSED)
    return model


def prepare(steps: int = 600) -> None:
    """Write the base and every party's texts into `out/`."""
    pretrained(steps).save_pretrained(OUT / "base")
    count, own = sum(SITES.values()) // len(CLOSED), PUBLIC // len(CLOSED)
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
