"""Three insurers ask what claims depend on; the tables are made up here, so the truth is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from privagg import Federation

HERE = Path(__file__).resolve().parent
INSURERS = {"alpha": 12_000, "beta": 8_000, "gamma": 5_000}
TERMS = ("age", "km", "region: rural", "region: city")
DRAWN_WITH = {
    "premium": (-0.04, 0.3, -1.0, 2.0),
    "claimed": (-0.02, 0.05, -0.2, 0.6),
    "claims": (-0.01, 0.03, 0.0, 0.4),
}


def draw_tables(folder: Path) -> None:
    """A policy a line: its premium in hundreds of euros, whether glass broke, and other claims."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(30)
    for name, policies in INSURERS.items():
        age = draw.uniform(20, 80, policies).round()
        km = draw.uniform(2, 38, policies).round(1)
        region = draw.choice(["town", "rural", "city"], policies, p=[0.4, 0.3, 0.3])
        terms = np.column_stack([age, km, region == "rural", region == "city"])
        premium, claimed, claims = (terms @ slopes for slopes in DRAWN_WITH.values())
        table = pd.DataFrame(
            {
                "age": age.astype(int),
                "km": km,
                "region": region,
                "premium": (premium + 10 + draw.normal(0, 2, policies)).round(2),
                "claims": draw.poisson(np.exp(claims - 0.8)),
                "claimed": (draw.random(policies) < 1 / (1 + np.exp(1.2 - claimed))).astype(int),
            }
        )
        table.to_csv(folder / f"{name}.csv", index=False)


draw_tables(HERE / "out" / "data")
federation = Federation.from_toml(HERE / "regressions.toml")
federation.approve(who="whoever runs this example", why="what claims depend on", job="questions")
asked = federation.ask()
answers = json.loads(asked.answers.read_text())
print(f"asked for ε = {answers['epsilon']} at δ = {answers['delta']}")
told = {}
for answer in answers["answers"]:
    outcome = answer["question"]["of"]
    print(f"{answer['question']['about']}:")
    for figure in answer["figures"]:
        term, errors = figure["group"].get("term"), figure["standard_errors"]
        if term in TERMS and errors is not None:
            drawn = DRAWN_WITH[outcome][TERMS.index(term)]
            told[outcome, term] = (figure["value"], errors["population"], drawn)
            print(
                f"  {term}: {figure['value']:.4f}, standard error {errors['population']:.4f}, of "
                f"the noise alone {errors['records']:.4f}; drawn with {drawn}"
            )
print(f"with odds ratios and rate ratios: {asked.report_html}")
