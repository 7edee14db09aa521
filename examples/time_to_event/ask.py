"""Three hospitals ask for survival curves by treatment; their tables are made up here."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from privagg import Federation

HERE = Path(__file__).resolve().parent
HOSPITALS = {"riverside": 700, "hillcrest": 500, "lakeview": 300}


def draw_tables(folder: Path) -> None:
    """Patients whose hazard rises with age and falls by 40 % under the new treatment."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(20)
    for name, patients in HOSPITALS.items():
        age = np.clip(draw.normal(62, 11, patients), 30, 90).round()
        new = draw.random(patients) < 0.5
        risk = np.exp(0.03 * (age - 62)) * np.where(new, 0.6, 1.0)
        death = 520 * (draw.exponential(1, patients) / risk) ** (1 / 1.2)
        seen_last = draw.uniform(200, 1500, patients)  # when the study ended for them
        table = pd.DataFrame(
            {
                "days": np.minimum(death, seen_last).round().astype(int),
                "status": np.where(death <= seen_last, "died", "alive"),
                "treatment": np.where(new, "new", "old"),
                "age": age.astype(int),
            }
        )
        table.to_csv(folder / f"{name}.csv", index=False)


draw_tables(HERE / "out" / "data")
federation = Federation.from_toml(HERE / "time_to_event.toml")
federation.approve(who="whoever runs this example", why="compare treatments", job="questions")
asked = federation.ask()
answers = json.loads(asked.answers.read_text())
print(f"asked for ε = {answers['epsilon']} at δ = {answers['delta']}")
for answer in answers["answers"]:
    for figure in answer["figures"]:
        label = " ".join((answer["question"]["name"], figure["what"], *figure["group"].values()))
        if figure["value"] is None or figure["population"] is None:
            print(f"{label}: too few records for the noise")
        else:
            low, high = figure["population"]["low"], figure["population"]["high"]
            print(f"{label}: {figure['value']:.4g}, for the population {low:.4g} to {high:.4g}")
print(f"with curves: {asked.report_html}")
