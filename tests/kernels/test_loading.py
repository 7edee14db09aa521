"""Kernels are loaded by the names that schemes give them."""

from __future__ import annotations

import sys

import pytest

from privagg.kernels.loading import load_kernels
from privagg.secure.registry import scheme
from privagg.secure.scheme import Requirement


@pytest.mark.parametrize("name", ["bfv", "ckks", "masked", "paillier", "plaintext"])
def test_every_scheme_names_kernels_that_exist(name: str) -> None:
    parameters = scheme(name).choose_parameters(Requirement(40, 1000, 4000, 4, 112))
    names = parameters.compiled_kernels
    load_kernels(names)
    assert all(f"privagg.kernels._{kernel}_numba" in sys.modules for kernel in names)
    assert bool(names) == (name != "plaintext")


def test_the_fallback_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVAGG_KERNELS", "numpy")
    load_kernels(["no such kernel"])
    monkeypatch.delenv("PRIVAGG_KERNELS")
    with pytest.raises(KeyError):
        load_kernels(["no such kernel"])
