"""Approves and runs `adapters.toml`, and says how many of the public texts are told apart.

python examples/adapters/train.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from privagg import Federation

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # lora_text.py is named in the configuration

federation = Federation.from_toml(HERE / "adapters.toml")
federation.approve(who="the sites' owners", why="an example")  # each for itself, in earnest
result = federation.run()
print(f"trained {federation.plan.dimension} values; {result.metrics}")
print(f"report: {result.report_html}")
