"""A transformer from a local folder with LoRA adapters, and the texts of each site as numbers.

`adapters.toml` names `classifier` and the sites' functions. An owner who approves the plan approves
this file, by its hash, to run beside the data; the transformer's own values are approved with the
plan, by theirs. Nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from transformers import AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()

OUT = Path(__file__).resolve().parent / "out"


class Logits(nn.Module):
    """Takes token numbers as floats, (B, tokens), and gives logits alone, (B, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attends to every token but 0, which fills up."""
        tokens = x.long()
        found = self.model(input_ids=tokens, attention_mask=(tokens != 0).long())
        return found.logits


def classifier(classes: int, rank: int) -> nn.Module:
    """The transformer, its own values frozen, with adapters of a rank and a head to train.

    All that is frozen is read from the folder: values that are drawn may differ between machines.
    """
    base = AutoModelForSequenceClassification.from_pretrained(
        OUT / "base", num_labels=classes, local_files_only=True
    )
    terms = LoraConfig(
        task_type=TaskType.SEQ_CLS, target_modules=["query", "value"],
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0,
    )  # fmt: skip
    return Logits(get_peft_model(base, terms))


def texts(name: str) -> Dataset:
    """One party's texts: token numbers as floats, (tokens,), and the class of each."""
    held = np.load(OUT / "data" / f"{name}.npz")
    tokens = torch.from_numpy(held["tokens"].astype(np.float32))
    return TensorDataset(tokens, torch.from_numpy(held["classes"].astype(np.int64)))


def north() -> Dataset:
    """The first site's."""
    return texts("north")


def south() -> Dataset:
    """The second site's."""
    return texts("south")


def west() -> Dataset:
    """The third site's."""
    return texts("west")


def public() -> Dataset:
    """Texts that nobody has to protect, to evaluate on."""
    return texts("public")
