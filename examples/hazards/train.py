"""Three hospitals train a model of hazards; their tables are made up here."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from privagg import Federation

HERE = Path(__file__).resolve().parent
HOSPITALS = {"riverside": 1400, "hillcrest": 1000, "lakeview": 600}


def draw_tables(folder: Path) -> None:
    """Patients whose hazard rises with age and falls by 60 % under the new treatment."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(20)
    for name, patients in HOSPITALS.items():
        age = np.clip(draw.normal(62, 11, patients), 30, 90)
        new = draw.random(patients) < 0.5
        death = 900 * draw.exponential(1, patients) / np.exp(0.06 * (age - 62))
        death = death / np.where(new, 0.4, 1.0)
        seen_last = draw.uniform(200, 1500, patients)  # when the study ended for them
        table = pd.DataFrame(
            {
                "days": np.minimum(death, seen_last).round(1),
                "status": np.where(death <= seen_last, "died", "alive"),
                "treatment": np.where(new, "new", "old"),
                "age": age.round(1),
            }
        )
        table.to_csv(folder / f"{name}.csv", index=False)


draw_tables(HERE / "out" / "data")
federation = Federation.from_toml(HERE / "hazards.toml")
federation.approve(who="whoever runs this example", why="to train")
result = federation.run()

federation.approve(who="whoever runs this example", why="to know", job="evaluation")
evaluated = federation.evaluate()
answers = json.loads(evaluated.answers.read_text())
for figure in answers["answers"][0]["figures"]:
    if figure["value"] is None:
        print(f"{figure['what']}: too few records for the noise")
    else:
        low, high = figure["records"]["low"], figure["records"]["high"]
        print(f"{figure['what']}: {figure['value']:.4g}, for these records {low:.4g} to {high:.4g}")

patients = pd.DataFrame({"treatment": ["old", "new"], "age": [70, 70]})
patients.to_csv(HERE / "out" / "patients.csv", index=False)
ends = federation.config.data.target.ends
for treatment, curve in zip(
    patients["treatment"], federation.predict(HERE / "out" / "patients.csv"), strict=True
):
    told = ", ".join(f"{alive:.2f} at {end:.0f}" for end, alive in zip(ends, curve, strict=True))
    print(f"alive at 70 years of age, {treatment} treatment: {told} days")
print(f"report {evaluated.report_html}")
