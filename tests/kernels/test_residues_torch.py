"""The torch path gives the same words and faults; on a GPU where there is one, else on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from privagg.kernels.layout import ResidueLayout
from privagg.kernels.residues import ResidueSum, pack_residues

torch = pytest.importorskip("torch")
from privagg.kernels.residues_torch import TorchResidueSum  # noqa: E402

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("packed", [True, False])
def test_same_words_and_faults_as_the_compiled_kernel(device: str, packed: bool) -> None:
    layout = ResidueLayout(((1 << 60) - 93, (1 << 43) - 57, 97), (512, 1024, 8), packed)
    rng = np.random.default_rng(5)
    payloads = []
    for _ in range(23):  # more than the seven additions that fit before a reduction
        rows = [
            rng.integers(0, q, n, dtype=np.uint64)
            for q, n in zip(layout.moduli, layout.counts, strict=True)
        ]
        payloads.append(pack_residues(layout, np.concatenate(rows)))
    payloads[4] = b"\xff" * len(payloads[4])
    payloads[9] = payloads[9][:-1] + b"\xff"
    ours, theirs = ResidueSum(layout), TorchResidueSum(layout, device)
    assert theirs.check(payloads[4]) == ours.check(payloads[4])
    assert theirs.add(payloads[:11]) == ours.add(payloads[:11])
    tensors = [
        torch.from_numpy(np.frombuffer(payload, np.uint8).copy()).to(device)
        for payload in payloads[11:]
    ]
    assert theirs.add(tensors) == ours.add(payloads[11:])
    assert theirs.to_bytes() == ours.to_bytes()
    with pytest.raises(ValueError, match="bytes instead of"):
        theirs.add([payloads[0][:-1]])
    with pytest.raises(ValueError, match="bytes instead of"):
        theirs.check(payloads[0] + b"\0")
