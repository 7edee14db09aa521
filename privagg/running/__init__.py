"""A run: the parties made, the rounds driven, the files left behind; here or across machines."""

from privagg.running.local import Run
from privagg.running.names import COORDINATOR, KEY_HOLDER
from privagg.running.results import RoundReport, RunResult

__all__ = ["COORDINATOR", "KEY_HOLDER", "RoundReport", "Run", "RunResult"]
