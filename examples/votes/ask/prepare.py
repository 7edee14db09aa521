"""Write the three hospitals' tables."""

from pathlib import Path

from privagg.training.datasets import write_breast_cancer

write_breast_cancer(Path(__file__).resolve().parent / "out" / "data")
