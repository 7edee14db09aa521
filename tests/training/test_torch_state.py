"""Torch's settings are borrowed, not taken."""

import pytest
import torch

from privagg.training.torch_state import deterministic_torch, layer_randomness


def test_torch_settings_come_back_as_they_were() -> None:
    torch.use_deterministic_algorithms(False)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError), deterministic_torch():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        raise RuntimeError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_layers_draw_from_a_generator_of_their_own() -> None:
    torch.manual_seed(3)
    untouched = torch.rand(2)
    torch.manual_seed(3)
    with pytest.raises(RuntimeError), layer_randomness(2**62):
        first = torch.rand(2)
        raise RuntimeError
    assert torch.equal(torch.rand(2), untouched)
    with layer_randomness(2**62):
        assert torch.equal(torch.rand(2), first)
