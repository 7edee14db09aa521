"""What is audited by trials: plans of every mode and compression, and the canary that fits."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from privagg.privacy.plan import ClientPlan, Compression, DistributedPlan, LocalPlan, Rounding
from privagg.privacy.plan import client as client_plan
from tests.audit.empirical import CANARIES, SITES, first_coordinate


def facts(weights: tuple[int, int, int] = (1, 1, 1), **more: Any) -> dict[str, Any]:
    return {
        "sites": [
            {"name": name, "records": CANARIES, "weight": weight}
            for name, weight in zip(SITES, weights, strict=True)
        ],
        "dimension": CANARIES + 1,
        "rounds": 1,
        "clip_norm_l2": Decimal("0.75"),
        "noise_multiplier": Decimal("0.7"),
        "delta": Decimal("1e-5"),
        "custody": "authority",
        "scheme": "bfv",
        **more,
    }


def distributed(**more: Any) -> DistributedPlan:
    return DistributedPlan(**facts(**{"sampling_rate": Decimal("0.5"), **more}))


def local(**more: Any) -> LocalPlan:
    rest = {"sampling_rate": Decimal(1), "local_steps": 4, "update_bound": Decimal(1)}
    rest["noise_multiplier"] = Decimal("1.8")
    return LocalPlan(**facts(**{**rest, **more}))


def client(**more: Any) -> ClientPlan:
    return ClientPlan(**facts(**{"dimension": 12, **more}))


HALF = Compression(kept=CANARIES // 2)
RECORD_PLANS: dict[str, Callable[[], DistributedPlan | LocalPlan]] = {
    "distributed": distributed,
    "distributed, random half of the coordinates": lambda: distributed(compression=HALF),
    "local": local,
    "local, sampled": lambda: local(
        local_steps=1, sampling_rate=Decimal("0.5"), noise_multiplier=Decimal("0.8")
    ),
    "local, stochastic 12 bits": lambda: local(
        update_bound=Decimal("0.05"),
        update_levels=2**11 - 1,
        compression=Compression(bits=12, rounding=Rounding.STOCHASTIC),
    ),
}


def coarse(rounding: Rounding) -> ClientPlan:
    """Three grid units in the clip norm of 36 coordinates, where rounding doubles an update."""
    sensitivity = client_plan.rounded_sensitivity(rounding, 3, 36)
    return client(
        dimension=36,
        weights=(20, 20, 20),
        sensitivity_grid=sensitivity,
        clip_norm_grid=3,
        compression=Compression(bits=3, rounding=rounding),
    )


def rotated() -> ClientPlan:
    compression = Compression(bits=8, rounding=Rounding.STOCHASTIC, rotation=True)
    steps = compression.finest_grid(12)
    sensitivity = client_plan.rounded_sensitivity(Rounding.STOCHASTIC, steps, 16)
    return client(sensitivity_grid=sensitivity, clip_norm_grid=steps, compression=compression)


LONGER = np.r_[np.ones(35), 0.0]
"""Clipped to 3 grid units it has 35 coordinates of 0.507, which all round up to 1."""

CLIENT_PLANS: dict[str, tuple[Callable[[], ClientPlan], np.ndarray]] = {
    "client": (client, first_coordinate(12)),
    "client, the heaviest of three": (lambda: client(weights=(3, 1, 1)), first_coordinate(12)),
    "client, the lightest of three": (lambda: client(weights=(1, 3, 3)), first_coordinate(12)),
    "client, random half": (lambda: client(compression=Compression(kept=6)), first_coordinate(12)),
    "client, rotated, 8 bits": (rotated, first_coordinate(12)),
    "client, nearest": (lambda: coarse(Rounding.NEAREST), LONGER),
    "client, stochastic": (lambda: coarse(Rounding.STOCHASTIC), LONGER),
}
