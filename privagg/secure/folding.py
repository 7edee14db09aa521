"""The aggregator's fold over any running sum of `privagg.kernels`: count, capacity, errors."""

from __future__ import annotations

from collections.abc import Sequence

from privagg.errors import CapacityError, CiphertextError, PrivaggError
from privagg.kernels.running_sum import Fault, RunningSum
from privagg.secure.scheme import Buffer, Fold


class KernelFold(Fold):
    """A fold that adds with a kernel; needs public parameters only.

    Args:
        kernel: the running sum, empty.
        capacity: most contributions the parameters were proved for.
    """

    def __init__(self, kernel: RunningSum, capacity: int) -> None:
        self.count = 0
        self._kernel = kernel
        self._capacity = capacity

    def add(self, payload: Buffer, addends: int = 1) -> None:
        """Check `payload` and add it; on any error the running sum is as it was before."""
        self._check_capacity(addends)
        self._check_size(payload)
        fault = self._kernel_add([payload], addends)[0]
        if fault is not None:
            raise CiphertextError(self._describe(fault))
        self.count += addends

    def add_many(self, payloads: Sequence[Buffer]) -> list[PrivaggError | None]:
        """Add single contributions in one pass over memory; for each its error, or None if added.

        Room is counted before residues are looked at: where more come than there is room for, the
        last ones are refused, whatever the first ones hold.
        """
        errors: list[PrivaggError | None] = [None] * len(payloads)
        fitting: list[int] = []
        for number, payload in enumerate(payloads):
            try:
                self._check_capacity(len(fitting) + 1)
                self._check_size(payload)
                fitting.append(number)
            except PrivaggError as error:
                errors[number] = error
        faults = self._kernel_add([payloads[number] for number in fitting], 1)
        for number, fault in zip(fitting, faults, strict=True):
            if fault is not None:
                errors[number] = CiphertextError(self._describe(fault))
        self.count += errors.count(None)
        return errors

    def payload(self) -> bytes:
        """The sum so far, as a payload."""
        if not self.count:
            raise CiphertextError("nothing was folded in yet, so there is no sum to hand out")
        return self._kernel.to_bytes()

    def _kernel_add(self, payloads: Sequence[Buffer], addends: int) -> list[Fault | None]:
        """Add through the kernel; schemes whose range grows with the addends override this."""
        return self._kernel.add(payloads)

    def _describe(self, fault: Fault) -> str:
        """A fault in words; schemes whose values are no plain words override this."""
        return describe(fault)

    def _check_capacity(self, addends: int) -> None:
        if addends < 1:
            raise CapacityError(f"a payload must hold at least 1 contribution, not {addends}")
        if self.count + addends > self._capacity:
            raise CapacityError(
                f"{self.count} contributions and {addends} more exceed the {self._capacity} that "
                "the parameters were proved for; choose parameters for more addends"
            )

    def _check_size(self, payload: Buffer) -> None:
        size = memoryview(payload).nbytes
        if size != self._kernel.input_bytes:
            raise CiphertextError(f"payload has {size} bytes instead of {self._kernel.input_bytes}")


def describe(fault: Fault) -> str:
    """A fault as a message: what is wrong, where, and what the limit is."""
    return (
        f"value {fault.index} of the payload is {fault.value}, outside its range "
        f"(limit {fault.limit})"
    )
