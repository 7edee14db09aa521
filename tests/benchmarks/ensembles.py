"""FedBoost on synthetic densities: what privacy costs an ensemble's weights.

    python -m tests.benchmarks.ensembles --json out/ensembles.json

Density estimation as in Hamer, Mohri & Suresh (ICML 2020), made here: each predictor is a density
over tokens with a peak of its own, records come from a mixture in which few predictors have most
of the weight, dealt to three sites. `excess` is the true mixture's Kullback-Leibler divergence from
the ensemble, in nats, the mean over draws of mixture, records and noise, with its standard error.
`paper` is the paper's algorithm without privacy, in plain numpy; ours goes through the sites' half
of the program with every site's share of the plan's noise from the operating system, δ = 1e-5.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from privagg import Federation
from privagg.config.asking import AskSetup
from privagg.privacy.randomness import SystemRandomness
from privagg.programs.fedboost import FedBoost
from privagg.programs.questions.columns import Columns
from privagg.programs.sums import SumsLearner
from privagg.programs.sums_program import NoisySum
from tests.benchmarks.tables import Row, show, write_json

FloatArray = npt.NDArray[np.float64]
SITES = ("north", "east", "south")
PEAK = 0.5
"""Of a predictor's mass on its own token; the rest is spread at random."""

CONCENTRATION = 0.1
"""Of the Dirichlet law that the mixture's weights come from."""


@dataclass(frozen=True)
class Synthetic:
    """A mixture of densities, and records from it.

    Attributes:
        densities: float64 (q, tokens).
        mixture: float64 (tokens,), the truth.
        tokens: int64 (n,), the records.
    """

    densities: FloatArray
    mixture: FloatArray
    tokens: npt.NDArray[np.int64]

    @classmethod
    def draw(cls, seed: int, predictors: int, tokens: int, records: int) -> Self:
        """One of them."""
        draw = np.random.default_rng(seed)
        densities = (1 - PEAK) * draw.dirichlet(np.ones(tokens), predictors)
        densities[np.arange(predictors), np.arange(predictors) % tokens] += PEAK
        mixture = draw.dirichlet(np.full(predictors, CONCENTRATION)) @ densities
        return cls(densities, mixture, draw.choice(tokens, records, p=mixture / mixture.sum()))

    @property
    def likelihoods(self) -> FloatArray:
        """How likely each predictor finds each record, float64 (n, q)."""
        return self.densities[:, self.tokens].T

    @property
    def columns(self) -> Columns:
        """The records as a program reads them."""
        return self._of(self.tokens)

    def _of(self, tokens: npt.NDArray[np.int64]) -> Columns:
        codes = {"token": tokens, "any": np.zeros(len(tokens), np.int64)}
        return Columns({}, codes, len(tokens))

    def excess_loss(self, weights: FloatArray) -> float:
        """How far the truth lies from an ensemble, in nats."""
        there = self.mixture > 0
        ratio = self.mixture[there] / (weights @ self.densities)[there]
        return float(self.mixture[there] @ np.log(ratio))

    @cached_property
    def data(self) -> dict[str, Any]:
        """What is declared."""
        names = [f"t{place}" for place in range(self.densities.shape[1])]
        target = {"name": "any", "classes": ["no", "yes"]}
        return {"features": [{"name": "token", "categories": names}], "target": target}

    def settings(self, **more: Any) -> dict[str, Any]:
        """What is asked."""
        named = [
            {"name": f"h{k}", "column": "token", "chances": each.tolist()}
            for k, each in enumerate(self.densities)
        ]
        return {"predictors": named, **more}

    def program(self, **settings: Any) -> FedBoost:
        """The program that is asked."""
        return FedBoost.of({"data": self.data, **self.settings(**settings)})

    def weights(self, epsilon: str | None, **settings: Any) -> FloatArray:
        """Weights by the sites' half of the program; None: without noise."""
        if epsilon is None:
            program, sums = self.program(**settings), list[NoisySum]()
            state = program.begin()
            for number in range(1, program.content.rounds + 1):
                total = program.integers(number, state, self.columns).sum(axis=0)
                sums.append(NoisySum(total, 0.0, SITES))
                state = program.step(number, state, sums[-1])
            return program.weights(sums)
        parts = np.array_split(self.tokens, len(SITES))
        made = Federation.from_dict(
            {
                "federation": {"name": "tokens"},
                "privacy": {"epsilon": 1, "delta": "1e-5", "budget_epsilon": 100, "colluders": 0},
                "training": {"model": "logistic", "rounds": 1},
                "secure": {"scheme": "plaintext", "custody": "authority"},
                "data": self.data,
                "ask": {
                    "epsilon": epsilon, "program": "fedboost",
                    "settings": self.settings(**settings),
                },
                "sites": [
                    {"name": name, "data": "none.csv", "records": len(part)}
                    for name, part in zip(SITES, parts, strict=True)
                ],
            }
        )  # fmt: skip
        setup = AskSetup.of(made.setup)
        plan, program, sums = setup.plan, setup.sums, list[NoisySum]()
        assert isinstance(program, FedBoost)
        state = program.begin()
        for number in range(1, plan.rounds + 1):
            total = sum(
                SumsLearner(plan, name, program, self._of(part)).contribution(
                    state, SystemRandomness(), ("draw", number, 1)
                )
                for name, part in zip(SITES, parts, strict=True)
            )
            sums.append(NoisySum.of(plan, number, np.asarray(total), plan.names))
            state = program.step(number, state, sums[-1])
        return program.weights(sums)


def papers_weights(likelihoods: FloatArray, rounds: int, rate: float) -> FloatArray:
    """FedBoost without privacy: exponentiated gradients, and the mean of the weights.

    Args:
        likelihoods: float64 (n, q).
        rounds: T.
        rate: η.

    Source: Hamer, Mohri & Suresh 2020, the algorithm of that name with the entropy as mirror map,
        every client and predictor in every round.
    """
    weights = np.full(likelihoods.shape[1], 1 / likelihoods.shape[1])
    whole = np.zeros_like(weights)
    for _ in range(rounds):
        gradient = -(likelihoods / (likelihoods @ weights)[:, None]).mean(axis=0)
        weights = weights * np.exp(-rate * (gradient - gradient.min()))
        weights = weights / weights.sum()
        whole += weights
    return np.asarray(whole / rounds)


def rows(args: argparse.Namespace) -> list[Row]:
    """One row for each way."""
    drawn = [Synthetic.draw(seed, args.predictors, args.tokens, args.records)
             for seed in range(args.draws)]  # fmt: skip
    ways: dict[str, Any] = {
        "equal weights": lambda made: np.full(args.predictors, 1 / args.predictors),
        "paper, 50 rounds at 0.5": lambda made: papers_weights(made.likelihoods, 50, 0.5),
        "no noise": lambda made: made.weights(None),
        "epsilon 8": lambda made: made.weights("8"),
        "epsilon 1": lambda made: made.weights("1"),
        "epsilon 1, half a round": lambda made: made.weights(
            "1", sent=args.predictors // 2, rate=0.3, rounds=40
        ),
    }
    found = list[Row]()
    for name, way in ways.items():
        losses = np.array([made.excess_loss(way(made)) for made in drawn])
        spread = float(losses.std(ddof=1) / np.sqrt(len(losses)))
        found.append({"way": name, "excess": float(losses.mean()), "se": spread,
                      "worst": float(losses.max()), "draws": len(losses),
                      "predictors": args.predictors, "records": args.records})  # fmt: skip
        write_json(args.json, found)
    return found


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--predictors", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--records", type=int, default=12000)
    parser.add_argument("--draws", type=int, default=10)
    found = rows(parser.parse_args())
    columns = ("way", "excess", "se", "worst", "draws", "predictors", "records")
    show("Ensembles of densities", {each: each for each in columns}, found)


if __name__ == "__main__":
    main()
