"""Makes up four plants' machines, from a seed: sensor readings, and whether a fault followed.

    python examples/sensors/prepare.py

Nothing here is measured. A fault's odds grow with vibration, heat and age, and with how far the
current is from what the load explains; each plant has its own mix of loads, as plants do.
"""

from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
HOURS = {"press_shop": 900, "paint_shop": 700, "assembly": 800, "foundry": 600, "public": 1500}
LOADS = {"press_shop": 0.7, "paint_shop": 0.4, "assembly": 0.5, "foundry": 0.8, "public": 0.6}
SEED = 2031


def machine_hours(place: str) -> pd.DataFrame:
    """Hours of machines at one plant, one a row.

    Args:
        place: a plant's name, or `public` for a test bench that hides nothing.
    """
    draw = np.random.default_rng([SEED, sorted(HOURS).index(place)])
    rows = HOURS[place]
    load = np.clip(draw.normal(LOADS[place], 0.15, rows), 0, 1)
    age = draw.uniform(0, 12, rows)  # years
    vibration = draw.gamma(4, 0.6, rows) + 0.15 * age  # mm/s
    heat = 40 + 35 * load + draw.normal(0, 5, rows)  # degrees Celsius
    current = 20 + 60 * load + draw.normal(0, 4, rows)  # ampere
    strange = np.abs(current - 20 - 60 * load)
    odds = -9.5 + 1.1 * vibration + 0.05 * heat + 0.12 * age + 0.15 * strange
    fault = (draw.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    table = {"load": load, "age": age, "vibration": vibration, "heat": heat, "current": current}
    return pd.DataFrame(table).round(3).assign(fault=fault)


def prepare(output: Path) -> None:
    """Writes <plant>.csv and public.csv into `output`."""
    output.mkdir(parents=True, exist_ok=True)
    for place in HOURS:
        machine_hours(place).to_csv(output / f"{place}.csv", index=False)


if __name__ == "__main__":
    prepare(HERE / "out" / "data")
