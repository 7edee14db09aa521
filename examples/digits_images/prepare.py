"""Writes the three clients' own image files from scikit-learn's handwritten digits.

python examples/digits_images/prepare.py
"""

from pathlib import Path

from privagg.training.datasets import write_digits

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    write_digits(HERE / "out" / "data")
