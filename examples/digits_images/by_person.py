"""A hundred people, each with fifteen digits: client-level privacy, where the unit is the person.

    python examples/digits_images/by_person.py

Each person trains in the clear on their own images, clips the whole update and adds a share of the
noise. With three clients the noise that hides a whole client would drown the model; with a hundred
it does not. The sites are made by this program, so the configuration is one too.
"""

from pathlib import Path
from typing import Any

import numpy as np

from privagg import Federation
from privagg.training.datasets import write_digits

HERE = Path(__file__).resolve().parent
IMAGES = 15  # of each person


def write_people(folder: Path, people: int) -> list[dict[str, Any]]:
    """Deals the clients' images out to people, and returns the sites that these are."""
    files = write_digits(folder)
    clients = [files[name] for name in ("north", "south", "west")]
    images = np.concatenate([np.load(path) for path, _ in clients])
    labels = np.concatenate([np.load(path) for _, path in clients])
    sites = []
    for number in range(people):
        mine = slice(number * IMAGES, (number + 1) * IMAGES)
        name = f"person-{number:03d}"
        np.save(folder / f"{name}-images.npy", images[mine])
        np.save(folder / f"{name}-labels.npy", labels[mine])
        paths = {"data": f"data/{name}-images.npy", "labels": f"data/{name}-labels.npy"}
        sites.append({"name": name, "records": IMAGES, **paths})
    return sites


def configuration(sites: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """The same values that a TOML file would hold."""
    return {
        "federation": {"name": "digits-by-person", "output": "by-person"},
        "privacy": {
            "mode": "client",
            "unit": "person",
            "epsilon": "8",
            "delta": "1e-3",  # a tenth of one over the number of people
            "clip_norm_l2": "0.5",
            "dropouts": len(sites) // 20,  # one in twenty may vanish without stopping a round
        },
        "training": {
            "model": "logistic",
            "rounds": rounds,
            "local_steps": 5,
            "local_batch_size": IMAGES,
            "local_learning_rate": 0.5,
            "proximal_mu": 0.1,  # FedProx
        },
        "secure": {"scheme": "bfv", "custody": "authority"},
        "data": {"kind": "images", "shape": [1, 8, 8], "value_range": [0, 16], "classes": 10},
        "sites": sites,
        "evaluation": {
            "data": "data/public-images.npy",
            "labels": "data/public-labels.npy",
            "public": True,
        },
    }


def main(people: int = 100, rounds: int = 8) -> Federation:
    """Trains and prints a line a round; returns the federation."""
    out = HERE / "out"
    sites = write_people(out / "data", people)
    federation = Federation.from_dict(configuration(sites, rounds), base=out)
    federation.approve(who="whoever runs this example", why="to try privagg")
    result = federation.run(
        on_round=lambda r: print(f"round {r.outcome.round}: {r.metrics.get('accuracy'):.3f}")
    )
    print(f"{result.outcome}; report {result.report_html}")
    return federation


if __name__ == "__main__":
    main()
