"""Small models, one for every kind of layer that per-record training takes or refuses.

Each maps `(B, *shape)` to two logits. `ACCEPTED` and `REFUSED` say which; of a refused model, the
layer that has to be named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN, DPMultiheadAttention
from torch import nn
from torch.nn import functional

VOCABULARY, STEPS, WIDTH = 11, 6, 8
NUMBERS, TOKENS = (STEPS,), (STEPS,)

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A model to be made, the shape of one record, and whether its inputs are token numbers.

    One that is refused names the layer; engine `exact` may take it all the same.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = NUMBERS
    tokens: bool = False
    layer: str = ""
    exact_takes: bool = False


class Computed(nn.Module):
    """Named layers and a function of them and the batch."""

    def __init__(
        self, forward: Callable[[Computed, torch.Tensor], torch.Tensor], **layers: nn.Module
    ) -> None:
        super().__init__()
        self._function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(self, x)


def on_numbers(layer: nn.Module, width: int, prepare: Function = lambda x: x) -> nn.Module:
    """The layer on a batch of numbers, a tanh, and a linear layer on top."""
    return Computed(
        lambda m, x: m.head(torch.tanh(m.layer(prepare(x))).flatten(1)),
        layer=layer,
        head=nn.Linear(width, 2),
    )


def on_tokens(
    layer: nn.Module, use: Callable[[nn.Module, torch.Tensor], torch.Tensor]
) -> nn.Module:
    """The layer on embedded tokens `(B, steps, width)`, used as `use` does, and the mean step."""
    return Computed(
        lambda m, x: m.head(use(m.layer, m.tokens(x.long())).mean(dim=1)),
        tokens=nn.Embedding(VOCABULARY, WIDTH),
        layer=layer,
        head=nn.Linear(WIDTH, 2),
    )


def stacked(*layers: nn.Module, width: int) -> nn.Module:
    """Layers in a row on numbers, flattened into a linear layer."""
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 2))


class FreeParameters(nn.Module):
    """Parameters of no layer: a learned token in front, and a learned scale."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.first = nn.Parameter(torch.linspace(-1, 1, WIDTH).reshape(1, 1, WIDTH))
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.cat([self.first.expand(len(x), -1, -1), self.tokens(x.long())], dim=1)
        return self.head(self.scale * torch.tanh(steps).mean(dim=1))


class Tied(nn.Module):
    """One weight matrix in two layers: used by calling both, or by its value alone."""

    def __init__(self, *, by_value: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.by_value = by_value
        if not by_value:
            self.back = nn.Linear(WIDTH, VOCABULARY, bias=False)
            self.back.weight = self.tokens.weight
        self.head = nn.Linear(VOCABULARY, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.tokens(x.long()).mean(dim=1)
        if self.by_value:
            return self.head(functional.linear(inner, self.tokens.weight))
        return self.head(self.back(inner))


class Positions(nn.Module):
    """Learned positions, asked for once a batch, or once a record."""

    def __init__(self, *, once_a_record: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(STEPS, WIDTH)
        self.once_a_record = once_a_record
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ids = torch.arange(STEPS, device=x.device)[None]
        if self.once_a_record:
            ids = ids.expand(len(x), -1)
        return self.head(torch.tanh(self.tokens(x.long()) + self.positions(ids)).mean(dim=1))


def time_first(steps: int, *, tokens: bool) -> nn.Module:
    """Works on (time, batch, features) inside, as recurrent code often does."""
    if not tokens:
        return Computed(
            lambda m, x: m.head(torch.relu(m.steps(x.transpose(0, 1))).mean(dim=0)),
            steps=nn.Linear(2, WIDTH),
            head=nn.Linear(WIDTH, 2),
        )
    return Computed(
        lambda m, x: m.head(m.norm(m.steps(m.tokens(x.long().t()))).mean(dim=0)),
        tokens=nn.Embedding(VOCABULARY, WIDTH),
        steps=nn.Linear(WIDTH, WIDTH),
        norm=nn.LayerNorm(WIDTH),
        head=nn.Linear(WIDTH, 2),
    )


def _folded() -> nn.Module:
    return Computed(
        lambda m, x: m.head(torch.tanh(m.steps(x.reshape(-1, 2))).reshape(len(x), -1)),
        steps=nn.Linear(2, 4),
        head=nn.Linear(12, 2),
    )


def _functional() -> nn.Module:
    return Computed(
        lambda m, x: m.head(torch.tanh(functional.linear(x, m.steps.weight, m.steps.bias))),
        steps=nn.Linear(STEPS, WIDTH),
        head=nn.Linear(WIDTH, 2),
    )


def _bag(*, offsets: bool) -> nn.Module:
    def pooled(m: Computed, x: torch.Tensor) -> torch.Tensor:
        if offsets:
            starts = torch.arange(len(x)) * STEPS
            return m.head(m.bag(x.long().reshape(-1), starts))
        return m.head(m.bag(x.long()))

    return Computed(pooled, bag=nn.EmbeddingBag(VOCABULARY, WIDTH), head=nn.Linear(WIDTH, 2))


def _twice() -> nn.Module:
    return Computed(
        lambda m, x: m.head(torch.tanh(m.again(torch.tanh(m.again(x))))),
        again=nn.Linear(STEPS, STEPS),
        head=nn.Linear(STEPS, 2),
    )


def _frozen() -> nn.Module:
    model = stacked(nn.Linear(STEPS, WIDTH), nn.ReLU(), width=WIDTH)
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


def _attended(layer: nn.Module) -> nn.Module:
    return on_tokens(layer, lambda attention, x: attention(x, x, x, need_weights=False)[0])


def _recurrent(layer: nn.Module) -> nn.Module:
    return on_tokens(layer, lambda cells, x: cells(x)[0])


def _as_channel(x: torch.Tensor) -> torch.Tensor:
    return x[:, None]


_IMAGE = (1, 8, 8)

ACCEPTED: dict[str, Case] = {
    "Linear": Case(lambda: nn.Linear(STEPS, 2)),
    "Linear+ReLU in place": Case(
        lambda: stacked(nn.Linear(STEPS, WIDTH), nn.ReLU(inplace=True), width=WIDTH)
    ),
    "Linear+GELU": Case(lambda: stacked(nn.Linear(STEPS, WIDTH), nn.GELU(), width=WIDTH)),
    "Linear+PReLU": Case(lambda: stacked(nn.Linear(STEPS, WIDTH), nn.PReLU(), width=WIDTH)),
    "Linear twice": Case(_twice),
    "Linear, frozen below": Case(_frozen),
    "Linear, weight_norm": Case(
        lambda: on_numbers(nn.utils.parametrizations.weight_norm(nn.Linear(STEPS, WIDTH)), WIDTH)
    ),
    "LayerNorm": Case(lambda: stacked(nn.LayerNorm(STEPS), width=STEPS)),
    "RMSNorm": Case(lambda: stacked(nn.RMSNorm(STEPS), width=STEPS)),
    "GroupNorm": Case(lambda: on_numbers(nn.GroupNorm(2, STEPS), STEPS)),
    "Conv1d": Case(lambda: on_numbers(nn.Conv1d(1, 4, 3, padding=1), 24, _as_channel)),
    "ConvTranspose1d": Case(lambda: on_numbers(nn.ConvTranspose1d(1, 4, 3), 32, _as_channel)),
    "Conv2d": Case(lambda: stacked(nn.Conv2d(1, 4, 3), nn.Tanh(), width=144), _IMAGE),
    "Conv3d": Case(lambda: stacked(nn.Conv3d(1, 2, 2), nn.Tanh(), width=54), (1, 4, 4, 4)),
    "InstanceNorm2d": Case(lambda: stacked(nn.InstanceNorm2d(1, affine=True), width=64), _IMAGE),
    "Embedding": Case(lambda: on_tokens(nn.Identity(), lambda _, x: x), TOKENS, tokens=True),
    "Embedding of positions, once a record": Case(
        lambda: Positions(once_a_record=True), TOKENS, tokens=True
    ),
    "tied weights, both layers called": Case(lambda: Tied(by_value=False), TOKENS, tokens=True),
    "parameters of no layer": Case(FreeParameters, TOKENS, tokens=True),
    "DPRNN": Case(lambda: _recurrent(DPRNN(WIDTH, WIDTH, batch_first=True)), TOKENS, tokens=True),
    "DPGRU": Case(lambda: _recurrent(DPGRU(WIDTH, WIDTH, batch_first=True)), TOKENS, tokens=True),
    "DPLSTM": Case(lambda: _recurrent(DPLSTM(WIDTH, WIDTH, batch_first=True)), TOKENS, tokens=True),
    "DPMultiheadAttention": Case(
        lambda: _attended(DPMultiheadAttention(WIDTH, 2, batch_first=True)), TOKENS, tokens=True
    ),
}
"""Layer kinds that train: every record's row is its own gradient, whoever is beside it."""

REFUSED: dict[str, Case] = {
    "GRU": Case(
        lambda: _recurrent(nn.GRU(WIDTH, WIDTH, batch_first=True)),
        TOKENS, tokens=True, layer=r"'layer' \(GRU\).*opacus\.layers\.DPGRU",
    ),
    "LSTM": Case(
        lambda: _recurrent(nn.LSTM(WIDTH, WIDTH, batch_first=True)),
        TOKENS, tokens=True, layer=r"'layer' \(LSTM\).*opacus\.layers\.DPLSTM",
    ),
    "RNN": Case(
        lambda: _recurrent(nn.RNN(WIDTH, WIDTH, batch_first=True)),
        TOKENS, tokens=True, layer=r"'layer' \(RNN\).*opacus\.layers\.DPRNN",
    ),
    "MultiheadAttention": Case(
        lambda: _attended(nn.MultiheadAttention(WIDTH, 2, batch_first=True)),
        TOKENS, tokens=True, layer=r"'layer' \(MultiheadAttention\).*DPMultiheadAttention",
    ),
    "TransformerEncoder": Case(
        lambda: on_tokens(
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.0, batch_first=True), 1,
                enable_nested_tensor=False,
            ),
            lambda encoder, x: encoder(x),
        ),
        TOKENS, tokens=True, layer=r"'layer\.layers\.0\.self_attn' \(MultiheadAttention\)",
    ),
    "Bilinear": Case(
        lambda: Computed(
            lambda m, x: m.pair(x[:, :3].contiguous(), x[:, 3:].contiguous()),
            pair=nn.Bilinear(3, 3, 2),
        ),
        layer=r"'pair' \(Bilinear\).*products",
    ),
    "EmbeddingBag, two axes": Case(
        lambda: _bag(offsets=False), TOKENS, tokens=True, layer=r"'bag' \(EmbeddingBag\)"
    ),
    "EmbeddingBag, offsets": Case(
        lambda: _bag(offsets=True),
        TOKENS, tokens=True, layer=r"'bag' \(EmbeddingBag\).*(than its own|than one tensor)",
    ),
    "Embedding of positions, once a batch": Case(
        lambda: Positions(once_a_record=False),
        TOKENS, tokens=True, layer=r"'positions' \(Embedding\).*expanded to the batch",
    ),
    "time folded into the batch": Case(_folded, layer=r"'steps' \(Linear\).*no time folded"),
    "a layer's weight by value": Case(
        _functional, layer=r"'steps' \(Linear\).*trains nothing.*never its weight alone"
    ),
    "a layer's output changed in place": Case(
        lambda: Computed(
            lambda m, x: m.head(torch.relu_(m.steps(x))),
            steps=nn.Linear(STEPS, WIDTH),
            head=nn.Linear(WIDTH, 2),
        ),
        layer=r"'steps' \(Linear\).*change no layer's output in place",
        exact_takes=True,
    ),
    "tied weights, by value": Case(
        lambda: Tied(by_value=True),
        TOKENS, tokens=True, layer=r"'tokens' \(Embedding\).*than its own",
    ),
    "time first, numbers": Case(
        lambda: time_first(64, tokens=False), (64, 2), layer=r"'steps' \(Linear\)"
    ),
    "time first, tokens": Case(
        lambda: time_first(64, tokens=True), (64,), tokens=True, layer=r"'tokens' \(Embedding\)"
    ),
}  # fmt: skip
"""Layer kinds with which a record would train nothing, or something else; `layer` is named."""
