"""LoRA adapters of peft in Hugging Face transformers: their records' gradients are their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
)

from privagg.errors import ModelError
from privagg.training.frozen import frozen_digest
from privagg.training.models import ParameterLayout, require_separable
from privagg.training.rehearsal import require_model_apart
from privagg.training.saving import load_model, save_model

TOKENS, WORDS = 12, 50

CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "gpt2": GPT2Config(
        vocab_size=WORDS, n_embd=32, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    ),
    "llama": LlamaConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=64, max_position_embeddings=16, pad_token_id=0,
    ),
}  # fmt: skip
TARGETS = {"bert": ["query", "dense"], "gpt2": ["c_attn", "c_fc"], "llama": ["q_proj", "v_proj"]}


class Logits(nn.Module):
    """A transformer that takes token numbers as floats and gives logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=x.long()).logits  # type: ignore[no-any-return]


def adapted(kind: str, base: nn.Module | None = None, **options: Any) -> Logits:
    torch.manual_seed(0)
    made = base or AutoModelForSequenceClassification.from_config(CONFIGS[kind])
    terms = {"target_modules": TARGETS[kind], "r": 4, **options}
    return Logits(get_peft_model(made, LoraConfig(task_type=TaskType.SEQ_CLS, **terms)))


def require_apart(model: nn.Module) -> None:
    require_separable(model, (TOKENS,), 2)
    require_model_apart(model, (TOKENS,), 16, engine="exact", sensitivity_grid=2**20)


@pytest.mark.parametrize("kind", CONFIGS)
def test_adapters_beside_linear_layers_and_conv1d_train_alone(kind: str) -> None:
    """Every row is what autograd has for its record alone; that is what the test requires."""
    model = adapted(kind)
    layout = ParameterLayout.of(model)
    assert all(".lora_" in n or ".modules_to_save." in n for n in layout.names)
    assert sum(".lora_A" in name for name in layout.names) >= 4
    assert layout.dimension < sum(p.numel() for p in model.parameters()) / 2
    frozen = frozen_digest(model)
    require_apart(model)
    assert frozen_digest(model) == frozen


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("bert", {"use_dora": True}, r"lora_A\.default' \(Linear\)"),
        ("bert", {"lora_dropout": 0.1}, r"random numbers.*lora_dropout\.default'.*dropout to 0"),
        ("gpt2", {"modules_to_save": ["wpe"]}, r"wpe\.modules_to_save\.default' \(Embedding\)"),
        ("gpt2", {"target_modules": ["wte"]}, r"wte\.lora_embedding_A' .*trains nothing"),
    ],
)
def test_adapters_that_hide_their_records_are_refused_by_name(
    kind: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        require_apart(adapted(kind, **options))


def test_a_base_from_a_local_folder_is_saved_with_its_adapters(tmp_path: Path) -> None:
    base = AutoModelForSequenceClassification.from_config(CONFIGS["bert"])
    base.save_pretrained(tmp_path / "base")

    def read() -> Logits:
        made = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "base", local_files_only=True
        )
        return adapted("bert", made)

    model, path = read(), tmp_path / "model.safetensors"
    assert frozen_digest(model) == frozen_digest(read())
    values = np.random.default_rng(1).normal(size=ParameterLayout.of(model).dimension) / 10
    save_model(model, values, path)
    x = torch.randint(0, WORDS, (3, TOKENS)).float()
    loaded, strict = load_model(read(), path).eval(), read().eval()
    strict.load_state_dict(load_file(path), strict=True)
    assert torch.equal(loaded(x), strict(x))
    assert not torch.equal(loaded(x), read().eval()(x))
