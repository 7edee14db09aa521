"""Loading the compiled kernels before they are needed: the first time, that compiles them.

Numba keeps the machine code beside the source (or where NUMBA_CACHE_DIR says), so only the first
run on a machine waits, for some ten seconds; a caller with a user in front of it says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from privagg.kernels.residues import default_backend

_MODULES = {
    "rounding": "privagg.kernels._rounding_numba",
    "residues": "privagg.kernels._residues_numba",
    "wide": "privagg.kernels._wide_numba",
    "modular": "privagg.kernels._modular_numba",
    "packed_sums": "privagg.kernels._packed_sums_numba",
    "thresholds": "privagg.kernels._thresholds_numba",
}


def load_kernels(names: Iterable[str]) -> None:
    """Load kernels, compiling those that this machine has not compiled yet.

    Does nothing where the numpy fallback is in use.

    Args:
        names: among `residues`, `wide`, `modular`, `packed_sums` (a scheme's `compiled_kernels`),
            `thresholds`, of noise, and `rounding`, of training.
    """
    if default_backend() == "numba":
        for name in names:
            import_module(_MODULES[name])
