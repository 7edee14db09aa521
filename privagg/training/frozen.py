"""What of a model is not trained: chosen by name, kept apart from what is, the same at every site.

A model of one's own may train a part of its parameters and leave the rest, and its buffers, as its
factory made them. Uploads, noise and a plan's dimension are of the trained part alone. The rest is
never sent, so its digest stands in the plan: a site whose factory makes another one is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain

import torch
from torch import nn

from privagg.errors import ModelError


def choose_trainable(model: nn.Module, patterns: Sequence[str]) -> None:
    """Trains the parameters whose names fit one of the patterns, and freezes all others.

    Args:
        model: changed in place; its parameters' `requires_grad` is set.
        patterns: names of parameters, with `*` and `?` as in file names.

    Raises:
        ModelError: as `named_parameters`; or a parameter cannot be trained, such as one of
            integers.
    """
    chosen = named_parameters(
        model, patterns, setting="training.model.trainable", either="trained or frozen"
    )
    ids = {id(parameter) for parameter in chosen.values()}
    for name, parameter in model.named_parameters():
        try:
            parameter.requires_grad_(id(parameter) in ids)
        except RuntimeError as error:
            raise ModelError(f"parameter {name!r} cannot be trained: {error}") from error


def named_parameters(
    model: nn.Module, patterns: Sequence[str], *, setting: str, either: str
) -> dict[str, nn.Parameter]:
    """The parameters whose names fit one of the patterns, by name.

    Args:
        model: whose.
        patterns: names, with `*` and `?` as in file names.
        setting: that has them, for messages.
        either: what a tensor is where it is named, or else.

    Raises:
        ModelError: a pattern fits no parameter, or not all names of a tensor that has several.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            some = ", ".join(list(named)[:8]) + (", ..." if len(named) > 8 else "")
            raise ModelError(f"{setting}: {pattern!r} fits no parameter; there are: {some}")
    chosen = {n: p for n, p in named.items() if any(fnmatchcase(n, each) for each in patterns)}
    ids = {id(parameter) for parameter in chosen.values()}
    for name, parameter in named.items():
        if id(parameter) in ids and name not in chosen:
            other = next(n for n in sorted(chosen) if chosen[n] is parameter)
            raise ModelError(
                f"{setting} fits {other!r} and not {name!r}, and both name one tensor, which is "
                f"either {either}; name both or neither"
            )
    return chosen


def require_own_memory(model: nn.Module) -> None:
    """Refuses a trainable parameter that shares its memory with another tensor of the model.

    A step would move both. Several names of one parameter are no such case: it is trained once.

    Raises:
        ModelError: it names the two.
    """
    held: dict[int, list[tuple[int, int, str, bool]]] = {}
    seen: set[int] = set()
    parameters = model.named_parameters(remove_duplicate=False)
    for name, tensor in chain(parameters, model.named_buffers(remove_duplicate=False)):
        if id(tensor) in seen or tensor.numel() == 0 or tensor.device.type == "meta":
            continue
        seen.add(id(tensor))
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        last = tensor.data_ptr() + sum((n - 1) * s for n, s in steps) * tensor.element_size()
        held.setdefault(tensor.untyped_storage().data_ptr(), []).append(
            (tensor.data_ptr(), last, name, tensor.requires_grad)
        )
    for tensors_there in held.values():
        _require_ranges_apart(sorted(tensors_there))


def _require_ranges_apart(ranges: Sequence[tuple[int, int, str, bool]]) -> None:
    """Tensors of one storage, each (first byte, last value's first byte, name, trained)."""
    for index, (_, last, name, trained) in enumerate(ranges):
        for start, _, other, other_trained in ranges[index + 1 :]:
            if start <= last and (trained or other_trained):
                what = "both are" if trained and other_trained else "one of them is"
                raise ModelError(
                    f"{name!r} and {other!r} lie in the same memory and {what} trained, so a step "
                    "would move both; make them one parameter (tied), or copy one (clone)"
                )


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that `load_state_dict` asks for: trained, frozen and tied parameters, kept buffers.

    Raises:
        ModelError: an entry is no tensor, or one whose values are not in this machine's memory.
    """
    state: Mapping[str, object] = model.state_dict(keep_vars=True)
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"the model's state {name!r} is a {type(value).__name__}, and a model's file holds "
                "tensors alone; keep it in the factory's arguments"
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise ModelError(
                f"tensor {name!r} is {value.layout}, {value.dtype} on {value.device}; privagg "
                "keeps dense tensors on the CPU"
            )
        found[name] = value
    return found


def frozen_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What of `state_of` no step changes, by name; the model's own tensors.

    Raises:
        ModelError: as `state_of`.
    """
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    return {name: t.detach() for name, t in state_of(model).items() if id(t) not in trained}


def frozen_digest(model: nn.Module) -> str | None:
    """SHA-256 (hex) of frozen tensors' names, types, shapes and bits; None where all is trained.

    Raises:
        ModelError: as `state_of`.
    """
    tensors = frozen_tensors(model)
    if not tensors:
        return None
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{len(name.encode())} {name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        whole.update(_bits(tensor).numpy().data)
    return whole.hexdigest()


def require_frozen(model: nn.Module, agreed: object) -> None:
    """Refuses a model whose frozen tensors are not the agreed ones, bit for bit.

    Args:
        model: as its factory made it here and now.
        agreed: SHA-256 (hex) of the frozen tensors, as a plan's recipe says; None where nothing is
            frozen.

    Raises:
        ModelError: they are others.
    """
    found = frozen_digest(model)
    if found != agreed:
        raise ModelError(
            f"the model's frozen values have SHA-256 {found or '(none are frozen)'}, agreed on is "
            f"{agreed or 'that none are'}; get the base that was agreed on. A factory has to give "
            "the same bits at every site and every time: read them from a file that all sites "
            "have, as values that are drawn may differ between machines. Nothing was charged"
        )


def require_saved(model: nn.Module, saved: Mapping[str, torch.Tensor]) -> None:
    """Refuses a model's file that was trained on other frozen tensors than this model has.

    Args:
        model: as its factory made it.
        saved: what the file holds, by name.

    Raises:
        ModelError: it names the tensor that is missing or another.
    """
    for name, own in frozen_tensors(model).items():
        theirs = saved.get(name)
        if theirs is None:
            raise ModelError(f"the model file does not hold the frozen tensor {name!r}")
        if (theirs.dtype, theirs.shape) != (own.dtype, own.shape) or not torch.equal(
            _bits(theirs), _bits(own)
        ):
            raise ModelError(
                f"the model file's frozen tensor {name!r} is another than the model's, so it was "
                "trained on another base"
            )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's bytes, uint8 `(n,)`; a view wherever it lies in one piece."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
