"""A run: the parties made, the rounds driven, the files left behind; here or across machines."""

from privagg.running.local import Run
from privagg.running.names import COORDINATOR, KEY_HOLDER
from privagg.running.results import RoundReport, RunResult
from privagg.running.search import Candidate, SearchResult

__all__ = [
    "COORDINATOR",
    "KEY_HOLDER",
    "Candidate",
    "RoundReport",
    "Run",
    "RunResult",
    "SearchResult",
]
