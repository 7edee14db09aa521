"""Three hospitals ask four questions, look at the answers, and train: all of it from Python."""

import json
from pathlib import Path

from privagg import Federation
from privagg.training.datasets import write_breast_cancer

HERE = Path(__file__).resolve().parent

write_breast_cancer(HERE / "out" / "data")
federation = Federation.from_toml(HERE / "ask_first.toml")
federation.approve(who="whoever runs this example", why="before training", job="questions")
asked = federation.ask()
answers = json.loads(asked.answers.read_text())
print(f"asked for ε = {answers['epsilon']} at δ = {answers['delta']}")
for answer in answers["answers"]:
    for figure in answer["figures"]:
        label = " ".join((answer["question"]["name"], figure["what"], *figure["group"].values()))
        if figure["value"] is None:
            print(f"{label}: too few records for the noise")
        else:
            low, high = figure["records"]["low"], figure["records"]["high"]
            print(f"{label}: {figure['value']:.4g}, for these records {low:.4g} to {high:.4g}")

federation.approve(who="whoever runs this example", why="to train")
result = federation.run()
print(f"accuracy {result.metrics['accuracy']:.3f}, report {result.report_html}")
