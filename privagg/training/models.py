"""Models that can be trained with per-record gradients, and their parameters as one vector."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from privagg.encoding.vectors import FloatVector
from privagg.errors import ConfigError, ModelError
from privagg.privacy.plan import TrainingPlan
from privagg.training.declared import ModelSpec
from privagg.training.factories import ApprovedCode, look_at
from privagg.training.frozen import choose_trainable, require_own_memory
from privagg.training.remembered import once
from privagg.training.targets import ClassKind, NumberedClasses, TargetKind
from privagg.training.torch_state import layer_randomness


def build_model(
    spec: ModelSpec | str,
    input_shape: tuple[int, ...],
    target: TargetKind | int,
    *,
    seed: int = 0,
    code: ApprovedCode | None = None,
) -> nn.Module:
    """Builds a model whose initial parameters follow from a public seed.

    Args:
        spec: the model, or its `kind` alone.
        input_shape: shape of one record's input.
        target: what is predicted; a number stands for so many classes.
        seed: public seed of the initial parameters. The logistic model starts at zero.
        code: what may be imported for a factory; None only where the caller wrote `spec` itself,
            and so decides that its module runs.

    Returns:
        A float32 model on the CPU that maps `(B, *input_shape)` to `(B, outputs)`, as many as the
        target takes, in which no layer mixes records.

    Raises:
        ApprovalError: its factory is not among `code`; nothing was imported.
        ModelError: the model cannot be built, mixes records, or has another output.
    """
    spec = ModelSpec(kind=spec) if isinstance(spec, str) else spec
    try:
        with layer_randomness(seed):
            model = _built(spec, input_shape, _kind(target), code)
            once(
                lambda: require_separable(model, input_shape, target),
                model, "separable", input_shape, _outputs(_kind(target)),
            )  # fmt: skip
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ModelError(
            f"this machine's memory has no room for the model {spec.kind!r} with inputs of shape "
            f"{input_shape}; make it smaller (hidden = {list(spec.hidden)}, channels = "
            f"{list(spec.channels)}, options = {dict(spec.options)})"
        ) from error
    return model


def filled_model(
    spec: ModelSpec,
    input_shape: tuple[int, ...],
    target: TargetKind,
    tensors: Mapping[str, torch.Tensor],
) -> nn.Module:
    """A built-in model with the tensors of its file, all of them and no others.

    Nothing is allocated by what `spec` says: its values are the given tensors.

    Args:
        spec: of a built-in kind; no code is imported for another.
        input_shape, target: as for `build_model`.
        tensors: by name, as the file holds them.

    Raises:
        ModelError: they are not the model's; or there is no such built-in model.
    """
    try:
        with torch.device("meta"):
            model = _built(spec, input_shape, target, ApprovedCode())
        expected = {name: (each.shape, each.dtype) for name, each in model.state_dict().items()}
        if expected != {name: (each.shape, each.dtype) for name, each in tensors.items()}:
            raise ModelError(
                f"the file's tensors are not those of the model {spec.kind!r} that its header "
                f"names: it should hold {', '.join(sorted(expected))}, each in its shape and type"
            )
        model.load_state_dict(tensors, strict=True, assign=True)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"the file's header names no model that can be built: {error}") from error
    return model.eval()


def _kind(target: TargetKind | int) -> TargetKind:
    return NumberedClasses(count=target) if isinstance(target, int) else target


def _built(
    spec: ModelSpec, input_shape: tuple[int, ...], target: TargetKind, code: ApprovedCode | None
) -> nn.Module:
    if spec.kind == "logistic":
        return _logistic(input_shape, target, centred=spec.centred)
    if spec.kind == "mlp":
        return _mlp(input_shape, spec.hidden, target)
    if spec.kind == "cnn":
        return _cnn(input_shape, spec.channels, target)
    if ":" in spec.kind:
        return _from_factory(spec, input_shape, target, code)
    raise ModelError(
        f"unknown model {spec.kind!r}; use 'logistic', 'mlp', 'cnn' or 'package.module:factory'"
    )


def _head(width: int, target: TargetKind) -> list[nn.Module]:
    """The last layers; where outputs have one slope, each adds a constant of its own to it."""
    if not target.one_slope:
        return [nn.Linear(width, target.outputs)]
    constants = nn.Linear(1, target.outputs)
    nn.init.ones_(constants.weight).requires_grad_(False)
    nn.init.zeros_(constants.bias)
    return [nn.Linear(width, 1, bias=False), constants]


class Centre(nn.Module):
    """Takes a public vector off its inputs, and adds a constant input for the intercept.

    No gradient reaches the centre: the coordinator sets it. The constant is small beside a record,
    as its entry of a gradient counts in the clip and the intercept is nearly known by then.
    """

    constant = 0.5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(x - centre, constant), float32 `(B, width + 1)`."""
        constants = x.new_full((len(x), 1), self.constant)
        return torch.cat([x - self.centre.detach(), constants], dim=1)


def _logistic(
    input_shape: tuple[int, ...], target: TargetKind, *, centred: bool = False
) -> nn.Module:
    width = math.prod(input_shape)
    if centred:
        head: list[nn.Module] = [nn.Linear(width + 1, target.outputs, bias=False)]
    else:
        head = _head(width, target)
    for parameter in itertools.chain.from_iterable(layer.parameters() for layer in head):
        if parameter.requires_grad:
            nn.init.zeros_(parameter)
    return nn.Sequential(nn.Flatten(), *([Centre(width)] if centred else []), *head)


def _mlp(input_shape: tuple[int, ...], hidden: tuple[int, ...], target: TargetKind) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, *_head(width, target))


def _cnn(input_shape: tuple[int, ...], channels: tuple[int, int], target: TargetKind) -> nn.Module:
    if len(input_shape) != 3 or min(input_shape[1:]) < 4:
        raise ModelError(
            f"'cnn' takes images (C, H, W) of at least 4x4 pixels, got {input_shape}; use 'mlp'"
        )
    if any(width % 4 for width in channels):
        raise ModelError(f"channels of 'cnn' must be multiples of 4 (GroupNorm), got {channels}")
    first, second = channels
    # Tanh and GroupNorm: bounded activations train better under clipping than ReLU and BatchNorm
    # (Papernot et al. 2021), and neither looks across records.
    features = nn.Sequential(
        nn.Conv2d(input_shape[0], first, 3, padding=1),
        nn.GroupNorm(4, first),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.GroupNorm(4, second),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    width = second * (input_shape[1] // 4) * (input_shape[2] // 4)
    return nn.Sequential(*features, *_head(width, target))


def _from_factory(
    spec: ModelSpec, input_shape: tuple[int, ...], target: TargetKind, code: ApprovedCode | None
) -> nn.Module:
    try:
        allowed = ApprovedCode.of(look_at(spec.kind)) if code is None else code
        factory: Callable[..., Any] = allowed.load(spec.kind)
        accepted = inspect.signature(factory).parameters
    except ConfigError as error:
        raise ModelError(f"model {spec.kind!r} cannot be imported: {error}") from error
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"model {spec.kind!r} cannot be imported ({error}); it must read "
            "'package.module:factory' and be importable from where privagg runs"
        ) from error
    offered: dict[str, Any] = {"input_shape": input_shape}
    if isinstance(target, ClassKind):
        offered["classes"] = target.class_count
    else:
        offered["outputs"] = target.outputs
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    facts = {key: value for key, value in offered.items() if key in accepted or open_ended}
    try:
        model = factory(**{**facts, **spec.options})
    except Exception as error:  # a stranger's code may raise anything; name whose it was
        raise ModelError(f"model factory {spec.kind!r} failed: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec.kind!r} returned a {type(model).__name__}, not a torch.nn.Module")
    if spec.trainable:
        choose_trainable(model, spec.trainable)
    return model


def require_separable(
    model: nn.Module, input_shape: tuple[int, ...], target: TargetKind | int
) -> None:
    """Refuses a model in which one record's output depends on another record.

    Layers known to mix records are refused by name. Whatever is left is probed with synthetic
    records in a training step's forward pass, at the model's parameters moved a little, as zeros
    would hide a dependence: no output may have a gradient with respect to another record's input,
    none may differ in a bit when other records lie beside it, and no buffer may change. Layers that
    draw from torch's generator draw the same every time. Evidence, not a proof.

    Args:
        model: as it will train; its parameters and mode are put back.
        input_shape: shape of one record's input.
        target: what is predicted; a number stands for so many classes.

    Raises:
        ModelError: a layer mixes records, the output has another shape than the target takes, or
            nothing can be trained.
    """
    for path, layer in model.named_modules():
        _require_known_separable(path or type(layer).__name__, layer)
    _require_trainable(model)
    was_training, parameters = model.training, get_parameters(model)
    model.train()
    try:
        set_parameters(model, parameters + 0.1 * np.sin(1.3 * np.arange(1, len(parameters) + 1)))
        _probe(model, input_shape, _kind(target))
    finally:
        set_parameters(model, parameters)
        model.train(was_training)


def _probe(model: nn.Module, input_shape: tuple[int, ...], target: TargetKind) -> None:
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    # Values spread over (0, 1), different in every record; as whole numbers they are index 0, which
    # every embedding has. Synthetic, so nothing leaks.
    steps = torch.arange(1, 3 * math.prod(input_shape) + 1, dtype=torch.float32)
    x = (0.49 * torch.sin(1.7 * steps) + 0.5).reshape(3, *input_shape)
    leaf = x.clone().requires_grad_(True)
    try:
        output = _forward(model, leaf)
    except Exception as error:
        raise ModelError(
            f"the model does not take inputs of shape (B, {', '.join(map(str, input_shape))}): "
            f"{error}"
        ) from error
    allowed = {(3, outputs) for outputs in _outputs(target)}
    if not isinstance(output, torch.Tensor) or tuple(output.shape) not in allowed:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(
            f"the model's output for 3 records is {shape}; expected logits {sorted(allowed)}"
        )
    if bool(output.isnan().any()):
        raise ModelError(
            "the model's output is no number for ordinary synthetic records, so it cannot be "
            f"tested before training; {_not_finite(model)}"
        )
    _require_gradient_apart(output, leaf)
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            raise ModelError(
                f"buffer {name!r} changes in a forward pass, so the model keeps statistics over "
                "records; use a layer without running statistics, such as GroupNorm"
            )
    _require_output_apart(model, x)


def _outputs(target: TargetKind) -> frozenset[int]:
    """How many numbers a model may give for a record: also a logit for each of two classes."""
    classes = {target.class_count} if isinstance(target, ClassKind) else set()
    return frozenset({target.outputs, *classes})


def _not_finite(model: nn.Module) -> str:
    """Which of a model's own values are not finite, or where else to look."""
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    named = [f"{name!r}" for name, tensor in tensors if not bool(torch.isfinite(tensor).all())]
    if named:
        return f"its values {', '.join(named[:3])} are not; mend the file that they come from"
    return "look for divisions, roots and logarithms"


def _forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with layer_randomness(0):  # dropout's masks stay, so that only the records differ
        return cast(torch.Tensor, model(x))


def _require_output_apart(model: nn.Module, x: torch.Tensor) -> None:
    """Compares outputs, for a dependence without a gradient: no_grad, detach, counts, signs."""
    whole = (x > 0.5).to(x.dtype)  # tells records apart where inputs are indices
    kinds = [x, whole]
    for kind in (torch.zeros_like(x), -x, 1000.0 * x):
        try:
            _forward(model, kind)
        except Exception:  # an index that an embedding lacks, for instance: not an input then
            continue
        kinds.append(kind)
    for record, own in itertools.product(range(len(x)), kinds):
        expected = None
        for companions in (*kinds, x.flip(0), whole.flip(0)):
            batch = companions.clone()
            batch[record] = own[record]
            try:
                output = _forward(model, batch)[record].detach()
            except Exception as error:
                raise ModelError(
                    "the model takes batches of each of two kinds of records and fails on both "
                    f"together ({error}), so it looks across records; it must treat each by itself"
                ) from error
            expected = output if expected is None else expected
            # Same place and batch size, hence the same kernels: equal but for a NaN's bits.
            if not torch.allclose(output, expected, rtol=0.0, atol=0.0, equal_nan=True):
                raise ModelError(
                    "one record's output depends on another record's input, without a gradient "
                    "to show it, so no bound on one record's influence holds; look for means, "
                    "maxima or counts over the batch axis under torch.no_grad or detach, for "
                    "state kept between passes, and for draws from another generator than torch's"
                )


def _require_known_separable(path: str, layer: nn.Module) -> None:
    kind = type(layer).__name__
    if isinstance(layer, _NormBase) and (
        "InstanceNorm" not in kind or getattr(layer, "track_running_stats", False)
    ):
        raise ModelError(
            f"layer {path!r} is {kind}, which mixes records, so no bound on one record's "
            "influence holds; use torch.nn.GroupNorm(groups, channels), or LayerNorm, instead"
        )
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        raise ModelError(
            f"layer {path!r} is {kind}, whose shape is not known yet; use the layer that states "
            "its input size"
        )


def _require_trainable(model: nn.Module) -> None:
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise ModelError("the model has no trainable parameter")
    for name, parameter in trainable:
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            raise ModelError(
                f"parameter {name!r} is {parameter.dtype} on {parameter.device}; privagg trains "
                "float32 models on the CPU"
            )
    require_own_memory(model)


def _require_gradient_apart(output: torch.Tensor, x: torch.Tensor) -> None:
    for record in range(len(x)):
        (gradient,) = torch.autograd.grad(
            output[record].sum(), x, retain_graph=True, allow_unused=True
        )
        if gradient is None:
            continue
        if bool(gradient.isnan().any()):
            raise ModelError(
                "an output's gradient with respect to ordinary synthetic records is no number, so "
                "the model cannot be tested before training; look for divisions, roots, logarithms "
                "and masks of infinities"
            )
        others = [other for other in range(len(x)) if other != record]
        if bool((gradient[others] != 0).any()):
            raise ModelError(
                "one record's output depends on another record's input, so no bound on one "
                "record's influence holds; look for attention or normalisation over the batch "
                "axis (batch_first=False, for instance)"
            )


@dataclass(frozen=True)
class ParameterLayout:
    """How a model's trainable parameters lie in one vector: by name order of the module tree.

    Args:
        names: parameter names.
        shapes: their shapes.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: nn.Module) -> ParameterLayout:
        """The layout of a model's trainable parameters."""
        trainable = [(n, tuple(p.shape)) for n, p in model.named_parameters() if p.requires_grad]
        return cls(tuple(n for n, _ in trainable), tuple(s for _, s in trainable))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each parameter."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def dimension(self) -> int:
        """Number of trainable values, d."""
        return sum(self.sizes)

    def to_tensors(self, vector: FloatVector) -> dict[str, npt.NDArray[np.float32]]:
        """The vector `(d,)` as named float32 arrays, for a model file.

        Raises:
            ModelError: the vector has another length.
        """
        self.require_length(vector)
        parts = np.split(np.asarray(vector, np.float32), np.cumsum(self.sizes)[:-1])
        named = zip(self.names, parts, self.shapes, strict=True)
        return {name: part.reshape(shape) for name, part, shape in named}

    def from_tensors(self, tensors: Mapping[str, npt.ArrayLike]) -> FloatVector:
        """The vector `(d,)` from named arrays; the inverse of `to_tensors` on float32 values.

        Raises:
            ModelError: a parameter is missing or has another shape.
        """
        parts = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in tensors or np.shape(tensors[name]) != shape:
                raise ModelError(
                    f"the model file holds no parameter {name!r} of shape {shape}; it has: "
                    f"{', '.join(sorted(tensors))}"
                )
            parts.append(np.asarray(tensors[name], np.float64).reshape(-1))
        return np.concatenate(parts)

    def require_length(self, vector: FloatVector) -> None:
        """Raises ModelError where the vector is not of this model's length."""
        if vector.shape != (self.dimension,):
            raise ModelError(
                f"a vector of shape {vector.shape} is no set of parameters of this model, which "
                f"has {self.dimension}"
            )


def require_dimension(plan: TrainingPlan, model: nn.Module, extra: int = 0) -> None:
    """Refuse a model of another size than the plan's.

    Args:
        plan: what everybody agreed to.
        model: the site's own.
        extra: values of a round's state beside the model's.

    Raises:
        ConfigError: the two do not fit.
    """
    dimension = ParameterLayout.of(model).dimension + extra
    if plan.dimension != dimension:
        raise ConfigError(
            f"the plan is for {plan.dimension} parameters, the model has {dimension}; model and "
            "features must be the ones that the plan was made for"
        )


def get_parameters(model: nn.Module) -> FloatVector:
    """The trainable parameters as one float64 vector `(d,)`, in the order of the layout."""
    parts = [p.detach().cpu().numpy().reshape(-1) for p in model.parameters() if p.requires_grad]
    return np.concatenate(parts).astype(np.float64)


def set_parameters(model: nn.Module, vector: FloatVector) -> None:
    """Writes one vector `(d,)` into the trainable parameters, rounded to float32.

    Raises:
        ModelError: the vector has another length.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in trainable]
    if vector.shape != (sum(sizes),):
        ParameterLayout.of(model).require_length(vector)
    values = torch.from_numpy(np.asarray(vector, dtype=np.float32)).to(trainable[0].device)
    parts = torch.split(values, sizes)
    with torch.no_grad():
        for parameter, part in zip(trainable, parts, strict=True):
            parameter.copy_(part.view_as(parameter))
