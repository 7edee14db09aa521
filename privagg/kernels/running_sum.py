"""The one calling form of every kernel: views of many inputs in, which of them were bad out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Fault:
    """The first value of an input that lies outside its range.

    Attributes:
        index: position of the value within the input.
        value: what was found there.
        limit: what it had to stay below (or, for signed values, within +-limit).
    """

    index: int
    value: int
    limit: int


class RunningSum(ABC):
    """A running sum over packed inputs, in place; its memory does not grow with the inputs."""

    @property
    @abstractmethod
    def input_bytes(self) -> int:
        """Exact size of one input in bytes."""

    @abstractmethod
    def add(self, inputs: Sequence[Buffer]) -> list[Fault | None]:
        """Check every value of every input and add the inputs that hold no fault.

        Args:
            inputs: buffers of `input_bytes` bytes each, read where they lie.

        Returns:
            For each input its first fault, or None if it was added. The sum is exactly that of
            the inputs without a fault.

        Raises:
            ValueError: an input of another size; nothing was added.
        """

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The sum so far, in the form of an input."""

    def require_sizes(self, inputs: Sequence[Buffer]) -> None:
        """Raise ValueError unless every input has `input_bytes` bytes."""
        for number, data in enumerate(inputs):
            size = memoryview(data).nbytes
            if size != self.input_bytes:
                raise ValueError(f"input {number} has {size} bytes instead of {self.input_bytes}")
