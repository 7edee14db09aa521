"""Three hospitals train, and evaluate the model on patients whom they held out: all from Python."""

import json
from pathlib import Path

from privagg import Federation
from privagg.training.datasets import write_breast_cancer

HERE = Path(__file__).resolve().parent

write_breast_cancer(HERE / "out" / "data")
federation = Federation.from_toml(HERE / "private_evaluation.toml")
federation.approve(who="whoever runs this example", why="to train")
result = federation.run()

federation.approve(who="whoever runs this example", why="to know", job="evaluation")
evaluated = federation.evaluate()
answers = json.loads(evaluated.answers.read_text())
print(f"evaluated for ε = {answers['epsilon']} at δ = {answers['delta']}")
for figure in answers["answers"][0]["figures"]:
    if figure["value"] is None:
        print(f"{figure['what']}: too few records for the noise")
    else:
        low, high = figure["records"]["low"], figure["records"]["high"]
        print(f"{figure['what']}: {figure['value']:.4g}, for these records {low:.4g} to {high:.4g}")
print(f"report {evaluated.report_html}")
