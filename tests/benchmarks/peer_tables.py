"""Private models of tables, made by `tabular.py --peers` in each peer's own environment.

One JSON request a line: the file with a table's training and test rows, what is public of its
columns, epsilon, delta and seeds; one JSON line back, the AUC on the test rows for each seed. All
rows are in one place: both peers are central, and take no colluding site into account.

DP-EBM (`interpret-core`) gets its defaults and the public ranges. dp-xgboost gets the public
ranges, and settings that were fixed before any table was read: 20 trees of depth 6, a tenth of the
records a tree, whose epsilon is that which amplification by sampling allows; it has pure epsilon.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

TREES, SAMPLED = 20, 0.1


def ebm(x: Any, y: Any, fresh: Any, request: dict[str, Any], seed: int) -> Any:
    """Chances by InterpretML's DP-EBM."""
    from interpret.privacy import DPExplainableBoostingClassifier

    columns = request["columns"]
    kinds = ["continuous" if each["range"] else "nominal" for each in columns]
    bounds = {n: tuple(each["range"]) for n, each in enumerate(columns) if each["range"]}
    model = DPExplainableBoostingClassifier(
        feature_types=kinds, privacy_bounds=bounds, epsilon=request["epsilon"],
        delta=request["delta"], random_state=seed, n_jobs=1,
    )  # fmt: skip

    def cells(values: Any) -> Any:
        found = values.astype(object)
        for n, each in enumerate(columns):
            if not each["range"]:
                found[:, n] = [str(int(code)) for code in values[:, n]]
        return found

    return model.fit(cells(x), y).predict_proba(cells(fresh))[:, 1]


def trees(x: Any, y: Any, fresh: Any, request: dict[str, Any], seed: int) -> Any:
    """Chances by dp-xgboost; categories that are none of the declared ones are a code of theirs."""
    import dp_xgboost

    ends = np.array([each["range"] or (0, each["categories"]) for each in request["columns"]])
    low, high = ends.T.astype(float).tolist()
    tree = math.log1p(math.expm1(request["epsilon"] / TREES) / SAMPLED)
    settings = {
        "objective": "binary:logistic", "tree_method": "approxDP", "max_depth": 6,
        "learning_rate": 0.3, "subsample": SAMPLED, "dp_epsilon_per_tree": tree, "base_score": 0.5,
        "min_child_weight": 500 * SAMPLED, "nthread": 1, "seed": seed, "verbosity": 0,
    }  # fmt: skip
    filled = [np.where(np.isnan(each), 0.0, each) for each in (x, fresh)]
    train = dp_xgboost.DMatrix(filled[0], y, feature_min=low, feature_max=high)
    model = dp_xgboost.train(settings, train, TREES)
    return model.predict(dp_xgboost.DMatrix(filled[1]))


def main() -> None:
    """Answer requests from standard input until it ends."""
    warnings.filterwarnings("ignore")
    made = {"interpret": ebm, "dp-xgboost": trees}[sys.argv[1]]
    for line in sys.stdin:
        request = json.loads(line)
        with np.load(request["table"]) as found:
            x, y, fresh, truth = (found[name] for name in ("x", "y", "fresh", "truth"))
        areas = [
            float(roc_auc_score(truth, made(x, y, fresh, request, seed)))
            for seed in request["seeds"]
        ]
        print(json.dumps(areas), flush=True)


if __name__ == "__main__":
    main()
