"""Records stay apart: tested with synthetic records, at the plan's own batch, before any charge.

A bound on one record's influence needs two things of a model, its hooks and this machine's kernels.
A record's row of the per-record gradients is that record's own gradient, or it trains nothing, or
something else. And not a bit of it depends on the records beside it. Neither follows from a layer's
name: a layer that sees time before records has gradients of the right shape wherever there are as
many steps as rows, and kernels may choose their order of addition by what lies in memory. So both
are tested where the training will be done; a model that fails is refused by the layer's name.
Evidence for this model, batch, machine and set of libraries, not a proof.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from privagg.encoding.grid import Grid
from privagg.encoding.vectors import FloatVector
from privagg.errors import ModelError
from privagg.training.data import TensorRecords
from privagg.training.declared import EngineName
from privagg.training.devices import ONE_THREAD, Device
from privagg.training.dpsgd import DpSgd
from privagg.training.models import get_parameters, set_parameters
from privagg.training.objective import CLASSES, Objective
from privagg.training.torch_state import (
    deterministic_torch,
    layer_randomness,
    require_no_autocast,
)

Row = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_Found = TypeVar("_Found")
_Computes = Callable[[torch.Tensor, torch.Tensor], _Found]

DISTINCT = 4
"""Different synthetic records of each kind; every place of a batch holds one of them."""

TOLERANCE = 1e-3
"""Of a parameter's own gradient, by norm: float32 summed in another order, nothing else."""

FLOOR = 1e-5
"""Of the whole gradient: a parameter whose own gradient cancels to rounding has no other scale."""

INSTEAD = {
    "GRU": "use opacus.layers.DPGRU",
    "LSTM": "use opacus.layers.DPLSTM",
    "RNN": "use opacus.layers.DPRNN",
    "MultiheadAttention": "use opacus.layers.DPMultiheadAttention",
    "Bilinear": "use torch.nn.Linear on the products of its two inputs",
    "EmbeddingBag": "use torch.nn.Embedding and take the mean or sum over the tokens",
}
OTHERWISE = (
    "call the layer itself, never its weight alone (not functional.linear(x, layer.weight)), and "
    "give it one record in each place of axis 0: batch_first=True, no time folded into the batch, "
    "position ids expanded to the batch; and change no layer's output in place"
)


@dataclass(frozen=True)
class RecordsApart:
    """How it is known that records stay apart, where, and for what; public facts.

    Args:
        how: `tested`: by this module, on the machine that trains; `proved`: by exact arithmetic,
            whose premises this module tested there.
        date: UTC day of the test.
        physical_batch: rows of the batches.
        threads: torch threads, as in training.
        device: processor and the instructions that torch's kernels use, or the card.
        torch: torch's version.
        opacus: Opacus' version.
        engine: how per-record gradients are clipped.
        placed: `slots`: sampled records lie in secret random rows of a public number.
    """

    how: str
    date: str
    physical_batch: int
    threads: int
    device: str
    torch: str
    opacus: str
    engine: EngineName
    placed: str = "slots"

    @property
    def text(self) -> str:
        """The same for a log."""
        return (
            f"engine {self.engine} on {self.device}, threads {self.threads}; that no record's "
            f"gradient depends on others was {self.how} on {self.date} for batches of "
            f"{self.physical_batch}, and rows are drawn at random"
        )

    def facts(self) -> dict[str, Any]:
        """The same as plain values, for a ledger."""
        return asdict(self)


def require_records_apart(trainer: DpSgd, device: Device = ONE_THREAD) -> RecordsApart:
    """Refuses a model whose per-record gradients are not each record's own, or not it alone.

    Training batches of synthetic records are run at the trainer's own physical batch, and at one
    more that no size of the model equals, at two sets of parameters. Every row must equal the
    gradient that autograd gives for the same record by itself, parameter by parameter; and no bit
    of it may change when the others become zeros, infinities, NaN, huge, denormal or other records.
    The trainer's records are not looked at. Its parameters are left as they were.

    Args:
        trainer: as it will train.
        device: where the trainer is, and with how many threads it will train.

    Where a record's bits follow from the record by proof, the proof's premise is tested in place of
    its gradient: matrix products of integers have one value in every order.

    Raises:
        ConfigError: autocast is on.
        ModelError: a layer does not give every record its own gradient, or a record's gradient
            depends on others. Nothing was charged.
    """
    require_no_autocast()
    parameters = get_parameters(trainer.model)
    with deterministic_torch(device.threads), layer_randomness(0):
        try:
            rehearsal = _Rehearsal(trainer)
            for moved in _moved(parameters):
                set_parameters(trainer.model, moved)
                if trainer.order_free:
                    rehearsal.require_one_value(trainer.physical_batch, _unlike_any_size(trainer))
                    continue
                rehearsal.require_own_gradients(trainer.physical_batch, _unlike_any_size(trainer))
            rehearsal.require_neighbours_without_effect()
        finally:
            set_parameters(trainer.model, parameters)
    return RecordsApart(
        how="proved" if trainer.order_free else "tested",
        date=datetime.now(UTC).date().isoformat(),
        physical_batch=trainer.physical_batch,
        threads=device.threads,
        device=device.name,
        torch=torch.__version__,
        opacus=version("opacus"),
        engine=trainer.engine,
    )


def require_model_apart(
    model: nn.Module,
    input_shape: tuple[int, ...],
    physical_batch: int,
    objective: Objective = CLASSES,
    *,
    engine: EngineName = "opacus",
    sensitivity_grid: int = 2**16,
    device: Device = ONE_THREAD,
) -> RecordsApart:
    """`require_records_apart` for a model that nobody trains; it belongs to the test from now on.

    Args:
        model: its parameters may be moved and put back.
        input_shape: shape of one record's input.
        physical_batch: records that are computed together.
        objective: what its outputs are held against.
        engine: how per-record gradients are clipped.
        sensitivity_grid: S, which decides what engine `exact` forms.
        device: where it is tested.

    Raises:
        ConfigError: the engine has no room for the grid or the batch, or cannot use the device.
        ModelError: as `require_records_apart`, or there are no per-record gradients at all.
    """
    nobody = TensorRecords.of(np.zeros((0, *input_shape)), np.zeros(0))
    trainer = DpSgd(
        model,
        nobody,
        Grid(clip_norm_l2=1, sensitivity_grid=sensitivity_grid),
        physical_batch=physical_batch,
        objective=objective,
        engine=engine,
        device=device.torch,
    )
    return require_records_apart(trainer, device)


def require_trains(
    model: nn.Module, input_shape: tuple[int, ...], objective: Objective, device: Device
) -> None:
    """Refuses an accelerator on which a model cannot take a plain step, records apart or not.

    Args:
        model: it belongs to the test from now on.
        input_shape: shape of one record's input.
        objective: what its outputs are held against.
        device: where it is to train; a CPU takes what it was built on.

    Raises:
        ModelError: the step fails.
    """
    if device.torch.type == "cpu":
        return
    outputs = model(torch.zeros(DISTINCT, *input_shape)).shape[1]
    targets = objective.examples(np.random.default_rng(0), DISTINCT, outputs)
    try:
        with deterministic_torch(device.threads):
            x = torch.zeros(DISTINCT, *input_shape, device=device.torch)
            y = torch.from_numpy(targets).to(device.torch)
            objective.loss(model.to(device.torch)(x), y).mean().backward()  # type: ignore[no-untyped-call]
            get_parameters(model)  # waits for the device
    except RuntimeError as error:
        raise ModelError(f"the model cannot be trained there: {error}") from error


class _Rehearsal:
    """Synthetic records for one trainer, and what is required of its batches of them."""

    def __init__(self, trainer: DpSgd) -> None:
        self._trainer = trainer
        self._shape = trainer.input_shape
        self._rng = np.random.default_rng(20_261_127)  # public: nothing here is secret
        kinds = [kind for kind in self._usual_kinds() if self._takes(kind)]
        if not kinds:
            raise ModelError(
                f"the model takes no inputs of shape {self._shape} with values between 0 and 1, so "
                "it cannot be tested before training"
            )
        self._kinds = kinds
        self._x = torch.cat(kinds)
        outputs = trainer.outputs(self._x[:1]).shape[1]
        examples = trainer.objective.examples(self._rng, len(self._x), outputs)
        self._y = torch.from_numpy(examples)
        self._fillers = {name: x for name, x in self._hostile_kinds().items() if self._takes(x)}

    def _usual_kinds(self) -> list[torch.Tensor]:
        """Inputs as models take them: shares, centred numbers, and indices all embeddings have."""
        shape = (DISTINCT, *self._shape)
        sizes = [
            layer.num_embeddings
            for layer in self._trainer.model.modules()
            if isinstance(layer, nn.Embedding | nn.EmbeddingBag)
        ]
        drawn = (
            self._rng.uniform(0.01, 0.99, shape),
            self._rng.standard_normal(shape),
            self._rng.integers(0, min(sizes, default=2), shape),
        )
        return [torch.from_numpy(values.astype(np.float32)) for values in drawn]

    def _hostile_kinds(self) -> dict[str, torch.Tensor]:
        one = torch.ones(1, *self._shape)
        values = {
            "zeros": 0.0,
            "infinities": math.inf,
            "negative infinities": -math.inf,
            "NaN": math.nan,
            "huge values": 3e38,
            "large values": -300.0,
            "denormal values": 1e-41,
        }
        return {name: value * one for name, value in values.items()}

    def _takes(self, x: torch.Tensor) -> bool:
        """Whether the model takes these inputs at all; an embedding, for one, lacks some."""
        try:
            self._trainer.outputs(x[:1])
            self._trainer.outputs(x)
        except Exception:  # whatever a layer raises where a record fits it not
            return False
        return True

    # --- every row is its record's own gradient ---------------------------------------------------

    def require_own_gradients(self, *sizes: int) -> None:
        """Holds each row of batches of these sizes against autograd on the row's record alone."""
        count = len(self._x)
        own = [self._own(i) for i in range(count)]
        if not any(np.isfinite(gradient).all() for gradient in own):
            raise ModelError(
                "no synthetic record has a finite gradient in this model, so it cannot be tested "
                "before training; look for divisions, roots and logarithms of weights"
            )
        for rows in sizes:
            everybody = np.resize(self._rng.permutation(count), -(-count // rows) * rows)
            for chosen in everybody.reshape(-1, rows):
                found = self._gradients(self._x[chosen], self._y[chosen])
                differing: dict[int, ModelError] = {}
                for place, record in enumerate(chosen):
                    if np.isfinite(own[record]).all():
                        try:
                            self._require_equal(found[place], own[record])
                        except ModelError as error:
                            differing[place] = error
                del found  # as large as the model, for each record
                if differing:
                    self._require_equal_in_float64(chosen, differing)

    def _require_equal_in_float64(self, chosen: Places, differing: dict[int, ModelError]) -> None:
        """Raises a row's refusal unless its gradient is its own once rounding is out of the way.

        In a deep network one activation that falls to the other side of zero moves a gradient by
        more than any rounding of sums. What belongs to whom is no matter of a number's width.
        """
        model, y = self._trainer.model, self._y[chosen]
        tensors = itertools.chain(model.parameters(), model.buffers())
        if any(t.is_floating_point() and t.dtype != torch.float32 for t in tensors):
            raise next(iter(differing.values()))
        x, y = self._x[chosen].double(), y.double() if y.is_floating_point() else y
        try:
            model.double()
            rows = self._trainer.batch_gradients(x, y)
            for place in differing:
                one = slice(place, place + 1)
                self._require_equal(rows[place], self._trainer.own_gradient(x[one], y[one]))
        except MemoryError:
            raise
        except Exception as error:  # it does differ, or the model has a type of its own
            raise next(iter(differing.values())) from error
        finally:
            model.float()

    def require_one_value(self, *sizes: int) -> None:
        """Holds records' bits in batches of these sizes, with one and two threads, to each other.

        Raises:
            ModelError: a record's integers follow from something else than the record.
        """
        everybody = torch.cat([self._x, *self._fillers.values()])
        classes = torch.from_numpy(np.resize(self._y.numpy(), (len(everybody), *self._y.shape[1:])))
        known = self._computed(self._trainer.batch_bits, everybody, classes)
        usual = torch.get_num_threads()
        for threads, rows in itertools.product((1, 2, usual), sizes):
            torch.set_num_threads(threads)
            for _ in range(2):
                chosen = self._rng.integers(0, len(everybody), rows)
                found = self._computed(self._trainer.batch_bits, everybody[chosen], classes[chosen])
                if not np.array_equal(found, known[chosen]):
                    raise ModelError(
                        f"exact arithmetic has not one value on this machine, in batches of {rows} "
                        f'with {threads} threads; set training.engine = "exact". '
                        "Nothing was charged"
                    )

    def _own(self, record: int) -> Row:
        x, y = self._x[record : record + 1], self._y[record : record + 1]
        try:
            return self._trainer.own_gradient(x, y)
        except MemoryError:
            raise
        except Exception as error:
            culprit = _last_entered(self._trainer, x, y)
            raise _refused(self._trainer.model, culprit, f"it fails ({error})") from error

    def _gradients(self, x: torch.Tensor, y: torch.Tensor) -> Rows:
        return self._computed(self._trainer.batch_gradients, x, y)

    def _computed(self, compute: _Computes[_Found], x: torch.Tensor, y: torch.Tensor) -> _Found:
        try:
            return compute(x, y)
        except ModelError as error:
            raise _refused(self._trainer.model, _named_in(str(error)), str(error)) from error
        except MemoryError:
            raise
        except Exception as error:
            culprit = _last_entered(self._trainer, x, y)
            raise _refused(self._trainer.model, culprit, f"it fails ({error})") from error

    def _require_equal(self, row: Row, own: Row) -> None:
        whole, start = _norm(own), 0
        for name, size in zip(self._trainer.layout.names, self._trainer.layout.sizes, strict=True):
            part = slice(start, start + size)
            start += size
            away = _norm(row[part].astype(np.float64) - own[part])
            if away <= TOLERANCE * _norm(own[part]) + FLOOR * whole:
                continue
            wrong = (
                f"it gives a record another gradient than its own (off by {away / whole:.1%})"
                if row[part].any() and whole
                else "it trains nothing, the record's gradient is lost"
            )
            raise _refused(self._trainer.model, name, wrong)

    # --- nobody else is in it --------------------------------------------------------------------

    def require_neighbours_without_effect(self) -> None:
        """Compares rows bit for bit between batches that differ in other places only."""
        rows = self._trainer.physical_batch
        chosen = self._rng.integers(0, len(self._x), rows)
        x, y = self._x[chosen], self._y[chosen]
        expected = self._computed(self._trainer.batch_bits, x, y)
        for kept, name, others in self._other_neighbours(rows):
            changed = others.clone()
            changed[kept] = x[kept]
            classes = self._y[self._rng.integers(0, len(self._y), rows)]
            classes[kept] = y[kept]
            found = self._computed(self._trainer.batch_bits, changed, classes)
            for place in kept:
                differing = np.count_nonzero(found[place] != expected[place])
                if not differing:
                    continue
                raise ModelError(
                    f"one record's gradient changes in {differing} numbers with {name} beside it, "
                    f"in batches of {rows} on this machine, so no bound on its influence holds; "
                    "try another physical_batch, or a model whose layers do not look across axis 0"
                )

    def _other_neighbours(self, rows: int) -> Iterator[tuple[Places, str, torch.Tensor]]:
        """(places that stay, what the others become, a batch of it), every place staying often."""
        halves = np.arange(rows) % 2
        everywhere = np.arange(rows)
        yield everywhere, "the same records", torch.zeros(rows, *self._shape)
        for turn, (name, filler) in enumerate(self._fillers.items()):
            yield np.flatnonzero(halves == turn % 2), name, filler.expand(rows, *self._shape)
        kinds = torch.cat([self._x, *self._fillers.values()])
        for half in (0, 1):
            mixed = kinds[self._rng.integers(0, len(kinds), rows)]
            yield np.flatnonzero(halves == half), "other records", mixed
        for place in {0, rows // 2, rows - 1}:
            mixed = kinds[self._rng.integers(0, len(kinds), rows)]
            yield np.array([place]), "other records", mixed


def _norm(values: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def _moved(parameters: FloatVector) -> Iterator[FloatVector]:
    """Parameters a little and far from the initial ones, at which zeros could hide a dependence."""
    yield parameters + 0.1 * np.sin(1.3 * np.arange(1, len(parameters) + 1))
    yield parameters + 0.3 * np.random.default_rng(1).standard_normal(len(parameters))


def _unlike_any_size(trainer: DpSgd) -> int:
    """A small number of rows that is no size in the model, so that no axis passes for another."""
    taken = {trainer.physical_batch, *trainer.input_shape, math.prod(trainer.input_shape)}
    taken.update(size for shape in trainer.layout.shapes for size in shape)
    return next(rows for rows in itertools.count(7, 2) if rows not in taken)


def _last_entered(trainer: DpSgd, x: torch.Tensor, y: torch.Tensor) -> str:
    """The layer at which a batch fails: the last that the backward pass, else forward, came to."""
    entered: list[str] = []
    handles = []
    for path, layer in trainer.model.named_modules():
        if next(layer.parameters(recurse=False), None) is not None:
            note = _noting(entered, path)
            handles += [
                layer.register_forward_pre_hook(note),
                layer.register_full_backward_pre_hook(note),
            ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # inputs need no gradient, says torch
            trainer.batch_gradients(x, y)
    except Exception:  # the same as before
        pass
    finally:
        for handle in handles:
            handle.remove()
    return entered[-1] if entered else ""


def _noting(entered: list[str], path: str) -> Any:
    def note(*_: object) -> None:
        entered.append(path)

    return note


def _named_in(message: str) -> str:
    return message.split("'")[1] if message.count("'") > 1 else ""


def _refused(model: nn.Module, name: str, what: str) -> ModelError:
    """The refusal of one layer, found by its path or by the name of one of its parameters."""
    layers = dict(model.named_modules())
    path = name if name in layers else name.rpartition(".")[0]
    kind = type(layers.get(path, model)).__name__
    where = f"layer {path!r} ({kind})" if path else f"the model ({kind})"
    return ModelError(
        f"per-record gradients are not right in {where}: {what}; "
        f"{INSTEAD.get(kind, OTHERWISE)}. Nothing was charged"
    )
