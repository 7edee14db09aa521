"""Hold the labels that won against those of the public table, line by line."""

import json
from pathlib import Path

import pandas as pd

OUT = Path(__file__).resolve().parent / "out"

answers = json.loads((OUT / "answers.json").read_text())["answers"]
labels = [int(answer["figures"][0]["group"]["malignant"] == "yes") for answer in answers]
truth = pd.read_csv(OUT / "data" / "public.csv")["malignant"][: len(labels)]
print(f"{sum(labels == truth)} of {len(labels)} public cases have the label that won")
