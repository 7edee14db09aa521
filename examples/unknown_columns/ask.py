"""Three hospitals ask what to declare of columns they know by name only, and train with it."""

from pathlib import Path

from privagg import Federation
from privagg.training.datasets import write_breast_cancer

HERE = Path(__file__).resolve().parent
WHO = "whoever runs this example"

write_breast_cancer(HERE / "out" / "data")
federation = Federation.from_toml(HERE / "unknown_columns.toml")
federation.approve(who=WHO, why="to declare the columns", job="facts")
asked = federation.ask(job="facts")
sections = federation.proposed(asked)
print(sections)

text = (HERE / "unknown_columns.toml").read_text() + "\n" + sections
declared = HERE / "out" / "declared.toml"
declared.write_text(
    text.replace('"out/data', '"data').replace("[federation]", '[federation]\noutput = "."')
)
federation = Federation.from_toml(declared)
federation.approve(who=WHO, why="to train")
result = federation.run()
print(f"accuracy {result.metrics['accuracy']:.3f}, report {result.report_html}")
