"""Sums of residues on a torch device (a GPU): the same words and faults as `ResidueSum`.

For an aggregator whose uploads already lie in device memory. Words are int64, because torch adds
no unsigned ones; a residue is below 2^60, so seven fit before a reduction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import pack_residues
from privagg.kernels.running_sum import Buffer, Fault, RunningSum

if TYPE_CHECKING:
    import torch


class TorchResidueSum(RunningSum):
    """A running sum of residue payloads in a device's memory.

    Args:
        layout: where residues lie in a payload.
        device: a torch device, for example "cuda".
    """

    def __init__(self, layout: ResidueLayout, device: str = "cuda") -> None:
        import torch

        self.layout = layout
        self._torch = torch
        self._device = torch.device(device)
        rows = layout.rows
        spread = np.repeat(rows.modulus, rows.count).astype(np.int64)
        self._moduli = torch.from_numpy(spread).to(self._device)
        self._total = torch.zeros(layout.residues, dtype=torch.int64, device=self._device)
        self._most = (2**63 - 1) // (max(layout.moduli) - 1) - 1
        self._lazy = 0

    @property
    def input_bytes(self) -> int:
        """Exact size of one payload in bytes."""
        return self.layout.payload_bytes

    def add(self, inputs: Sequence[Buffer | torch.Tensor]) -> list[Fault | None]:
        """Check every residue of every payload and add the payloads that hold no fault.

        Args:
            inputs: buffers, or uint8 tensors on any device, of `input_bytes` bytes.
        """
        tensors = [self._as_tensor(data) for data in inputs]
        for number, tensor in enumerate(tensors):
            if tensor.numel() != self.input_bytes:
                raise ValueError(
                    f"input {number} has {tensor.numel()} bytes instead of {self.input_bytes}"
                )
        faults: list[Fault | None] = []
        for tensor in tensors:
            words = self._unpack(tensor)
            fault = self._fault(words)
            faults.append(fault)
            if fault is not None:
                continue
            if self._lazy == self._most:
                self._reduce()
            self._total += words
            self._lazy += 1
        return faults

    def check(self, data: Buffer | torch.Tensor) -> Fault | None:
        """The first fault of one payload, or None; adds nothing."""
        tensor = self._as_tensor(data)
        if tensor.numel() != self.input_bytes:
            raise ValueError(f"input has {tensor.numel()} bytes instead of {self.input_bytes}")
        return self._fault(self._unpack(tensor))

    def residues(self) -> NDArray[np.uint64]:
        """The sum, reduced: uint64 (residues,) in the host's memory."""
        self._reduce()
        host: NDArray[np.uint64] = self._total.cpu().numpy().astype(np.uint64)
        return host

    def to_bytes(self) -> bytes:
        """The sum as a payload of `input_bytes` bytes."""
        return pack_residues(self.layout, self.residues())

    def _as_tensor(self, data: Buffer | torch.Tensor) -> torch.Tensor:
        if isinstance(data, self._torch.Tensor):
            return data.to(self._device)
        host = np.frombuffer(data, dtype=np.uint8).copy()  # torch wants writable memory
        return self._torch.from_numpy(host).to(self._device)

    def _unpack(self, data: torch.Tensor) -> torch.Tensor:
        """The residues of a payload; int64 (residues,), negative where a word is 2^63 or more."""
        rows = self.layout.rows
        out = self._torch.empty_like(self._total)
        for row in range(len(self.layout.moduli)):
            bits, count, at = int(rows.bits[row]), int(rows.count[row]), int(rows.source[row])
            groups = data[at : at + count * bits // 8].reshape(count // 8, bits)
            start = int(rows.target[row])
            out[start : start + count] = self._read(groups.to(self._torch.int64), bits).reshape(-1)
        return out

    def _read(self, groups: torch.Tensor, bits: int) -> torch.Tensor:
        """Eight residues from every group of `bits` bytes; int64 (groups, 8)."""
        columns: list[Any] = []
        for j in range(8):
            byte, shift = divmod(j * bits, 8)
            value = groups[:, byte] >> shift
            for k in range(1, (shift + bits + 7) // 8):
                value = value | groups[:, byte + k] << (8 * k - shift)
            columns.append(value if bits == 64 else value & ((1 << bits) - 1))
        return self._torch.stack(columns, dim=1)

    def _fault(self, words: torch.Tensor) -> Fault | None:
        outside = (words < 0) | (words >= self._moduli)
        if not bool(outside.any()):
            return None
        index = int(self._torch.nonzero(outside)[0, 0])
        row, _ = self.layout.locate(index)
        return Fault(index=index, value=int(words[index]) % 2**64, limit=self.layout.moduli[row])

    def _reduce(self) -> None:
        self._total %= self._moduli
        self._lazy = 0
