"""The jobs that a configuration has, by name: its training, and what is asked besides."""

from __future__ import annotations

from privagg.config.asking import AskSetup, SumsSetup
from privagg.config.data import UndeclaredData
from privagg.config.evaluating import EvaluateSetup, RoundsSetup
from privagg.config.facts import FactsSetup
from privagg.config.setup import TRAINING, Setup
from privagg.errors import ConfigError

BESIDES: dict[str, type[SumsSetup]] = {
    each.job: each for each in (AskSetup, FactsSetup, EvaluateSetup, RoundsSetup)
}
"""Job -> how it is made from the configuration whose training it stands beside."""

JOBS = (TRAINING, *BESIDES)


def job_of(training: Setup, job: str) -> Setup:
    """A job of a configuration.

    Args:
        training: its training.
        job: one of `JOBS`.

    Raises:
        ConfigError: there is no such job, or the configuration does not have it.
    """
    return training if job == TRAINING else beside(training, job)


def agreed_job(training: Setup) -> Setup:
    """The job whose plan parties pin when they join a deployment.

    Args:
        training: of the configuration.

    Returns:
        The training; while no column is declared, and there is none yet, the job of facts.

    Raises:
        ConfigError: there is neither.
    """
    return FactsSetup.of(training) if isinstance(training.config.data, UndeclaredData) else training


def beside(training: Setup, job: str) -> SumsSetup:
    """A job of a configuration that stands beside its training.

    Args:
        training: its training.
        job: one of `BESIDES`.

    Raises:
        ConfigError: there is no such job, or the configuration does not have it.
    """
    if job not in BESIDES:
        raise ConfigError(f"there is no job {job!r}; there are {', '.join(JOBS)}")
    return BESIDES[job].of(training)


def jobs_besides(training: Setup) -> tuple[SumsSetup, ...]:
    """Every other job that a configuration has.

    Args:
        training: its training.
    """
    return tuple(
        made.of(training)
        for made in BESIDES.values()
        if not training.given and made.is_in(training)
    )


def job_asking(program: str) -> str:
    """The job that asks a program.

    Args:
        program: its name; empty of training.
    """
    return (program if program in BESIDES else AskSetup.job) if program else TRAINING


def command_of(job: str) -> str:
    """The subcommand that does a job.

    Args:
        job: one of `JOBS`.
    """
    return BESIDES[job].command if job in BESIDES else Setup.command
