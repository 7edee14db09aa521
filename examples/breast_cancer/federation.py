"""Three hospitals train one breast-cancer model: the whole of it from Python."""

from pathlib import Path

from privagg import Federation
from privagg.training.datasets import write_breast_cancer

HERE = Path(__file__).resolve().parent

write_breast_cancer(HERE / "out" / "data")
federation = Federation.from_toml(HERE / "breast_cancer.toml")
print(f"{federation.plan.rounds} rounds, noise multiplier {federation.plan.noise_multiplier}")
federation.approve(who="whoever runs this example", why="to try privagg")
result = federation.run(on_round=lambda r: print(r.outcome.round, r.outcome.outcome, r.metrics))
print(f"accuracy {result.metrics['accuracy']:.3f}, report {result.report_html}")
