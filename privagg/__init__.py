"""privagg: privacy-focused aggregation for federated learning.

    from privagg import Federation

    result = Federation.from_toml("my.toml").run()

Names are loaded when they are first used, so that verifying a report needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Federation": "privagg.federation",
    "RunResult": "privagg.run.results",
    "Config": "privagg.config.schema",
    "load_config": "privagg.config.schema",
    "Ledger": "privagg.privacy.ledger",
    "PrivaggError": "privagg.errors",
}

if TYPE_CHECKING:
    from privagg.config.schema import Config, load_config
    from privagg.errors import PrivaggError
    from privagg.federation import Federation
    from privagg.privacy.ledger import Ledger
    from privagg.run.results import RunResult

__all__ = ["Config", "Federation", "Ledger", "PrivaggError", "RunResult", "load_config"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'privagg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
