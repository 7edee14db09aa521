"""scikit-learn's door: models over sites' tables with `fit`, `predict` and `predict_proba`.

    from privagg.federation.estimators import PrivateScorecard

    card = PrivateScorecard(ranges={"age": (20, 80)}, categories={"ward": ["a", "b"]}, folder="out")
    card.fit({"north": north, "south": south}, "readmitted")
    card.predict_proba(new_patients)

`fit` is a whole run in a folder: plan, approvals, charges in durable ledgers, encrypted or masked
sums, report and bundle. Fitting again is charged again, and refused where the budget has no room.
All sites' tables are in this process, which may read them; whoever gets the model may not.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from privagg.errors import ConfigError, DataError
from privagg.federation.federation import Federation
from privagg.programs.questions.columns import Columns
from privagg.programs.scorecard.card import Card
from privagg.run.results import RunResult

TARGET, ALL = "target", "records"
"""What the target's column and the one site are called where `fit` gets X and y."""


class PrivateScorecard(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Points a bin from a few opened sums, for two classes; see `privagg.programs.scorecard`.

    Everything given here is public, and none of it may come from the tables.

    Args:
        ranges: column of numbers -> lowest and highest value; or one pair for every column.
        categories: column -> its values.
        classes: the target's two values, the second one being what `predict_proba` ends with.
        epsilon, delta: what a fit costs each data set.
        budget: epsilon that a data set may spend over all fits in the folder; by default one fit's.
        folder: of ledgers, reports and runs; made where it is not there. The privacy that was spent
            is remembered in it: keep it.
        records: site -> how many records it has at most; by default as many as its table, which is
            public then.
        settings: of the card, such as `ordered`, `monotone`, `pairs`, `scaling`; what is left open,
            public facts choose.
        scheme: how sums are protected between the sites.
        colluders: sites that the noise allows for.
        who, why: of the approvals, which whoever calls `fit` gives for all owners.

    Attributes:
        card_: the card, with points by bin.
        classes_: as given.
        result_: of the run, with the paths of report and bundle.
    """

    def __init__(
        self,
        *,
        ranges: Mapping[str, tuple[float, float]] | tuple[float, float] | None = None,
        categories: Mapping[str, Sequence[Any]] | None = None,
        classes: Sequence[Any] = (0, 1),
        epsilon: float = 1.0,
        delta: float = 1e-5,
        budget: float | None = None,
        folder: str | os.PathLike[str] = "out",
        records: Mapping[str, int] | None = None,
        settings: Mapping[str, Any] | None = None,
        scheme: str = "plaintext",
        colluders: int = 0,
        who: str = "whoever calls fit",
        why: str = "a scorecard",
    ) -> None:
        self.ranges = ranges
        self.categories = categories
        self.classes = classes
        self.epsilon = epsilon
        self.delta = delta
        self.budget = budget
        self.folder = folder
        self.records = records
        self.settings = settings
        self.scheme = scheme
        self.colluders = colluders
        self.who = who
        self.why = why

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = tags.input_tags.string = True
        tags.classifier_tags.multi_class = False
        tags.non_deterministic = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Ask the sites for a card, and charge each.

        Args:
            X: site -> its table, a DataFrame with the columns that are declared and the target; or
                (n, m), records of one site alone.
            y: the name of the target's column; or (n,), the one site's targets.

        Raises:
            ConfigError, DataError: what is wrong; nothing was spent.
            BudgetExceededError: this fit does not fit the budget; nothing was spent.
        """
        sites, name = self._sites(X, y)
        folder = Path(self.folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fit-", dir=folder) as place:
            for site, table in sites.items():
                table.to_csv(Path(place) / f"{site}.csv", index=False)
            made = Federation.from_dict(self._configuration(sites, name, folder), base=place)
            made.approve(who=self.who, why=self.why, job="questions")
            found = made.ask()
        if found.answers is None:
            raise DataError(f"no sum was opened: {found.reason}")
        self.result_: RunResult = found
        self.card_ = Card.read(json.loads(found.answers.read_bytes()))
        self.classes_ = np.array(self.classes)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Chances of the two classes, float64 (n, 2).

        Args:
            X: a table with the declared columns, or (n, m) in the order of `fit`.
        """
        check_is_fitted(self)
        frame = self._frame(X, reset=False)
        missing = [each.name for each in self.card_.data.features if each.name not in frame]
        if missing:
            raise DataError(f"column(s) {', '.join(map(repr, missing))} of the card are not there")
        chance = self.card_.predictions(Columns.read(frame, self.card_.data, target=False))
        return np.stack([1 - chance, chance], axis=1)

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """The likelier class of each record, (n,).

        Args:
            X: as for `predict_proba`.
        """
        chosen = (self.predict_proba(X)[:, 1] > 0.5).astype(int)
        return np.asarray(self.classes_[chosen])

    # --- inside ---------------------------------------------------------------------------------

    def _sites(self, tables: Any, target: Any) -> tuple[dict[str, pd.DataFrame], str]:
        """The sites' tables with their target, and its column."""
        if isinstance(tables, Mapping) and not hasattr(tables, "shape"):  # sparse arrays may be
            if not isinstance(target, str):
                raise ConfigError("fit(tables, target): the target is the name of a column")
            names = [*self._declared(None)]
            for site, table in tables.items():
                lacking = [each for each in (*names, target) if each not in table]
                if lacking:
                    told = ", ".join(map(repr, lacking))
                    raise DataError(f"column(s) {told} are not in the table of {site!r}")
            self.feature_names_in_ = np.array(names, dtype=object)
            self.n_features_in_ = len(names)
            return {site: table[[*names, target]] for site, table in tables.items()}, target
        if target is None:
            raise ValueError("requires y to be passed, but the target y is None")
        frame, labels = self._frame(tables, target, reset=True)
        check_classification_targets(labels)
        if type_of_target(labels) == "multiclass":
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass."
            )
        return {ALL: frame.assign(**{TARGET: labels})}, TARGET

    def _frame(self, x: Any, y: Any = None, *, reset: bool) -> Any:
        """X as a table; with y where that is given."""
        if isinstance(x, pd.DataFrame) and reset is False and not self._by_place:
            return x  # columns by their names, whatever their order
        given = {} if y is None else {"y": y}
        found = validate_data(
            self, x, reset=reset, dtype=None, ensure_all_finite="allow-nan", **given
        )
        cells, labels = found if given else (found, None)
        frame = pd.DataFrame(cells, columns=self._names)
        return frame if labels is None else (frame, labels)

    @property
    def _by_place(self) -> bool:
        return not hasattr(self, "feature_names_in_")

    @property
    def _names(self) -> list[str]:
        if self._by_place:
            return [f"x{place}" for place in range(self.n_features_in_)]
        return [str(each) for each in self.feature_names_in_]

    def _declared(self, names: Sequence[str] | None) -> dict[str, dict[str, Any]]:
        """Each column's declaration."""
        categories = {
            name: {"name": name, "categories": list(values)}
            for name, values in (self.categories or {}).items()
        }
        if isinstance(self.ranges, Mapping):
            numbers = dict(self.ranges)
        elif self.ranges is not None and names is not None:
            numbers = {name: self.ranges for name in names if name not in categories}
        elif self.ranges is not None:
            raise ConfigError("name the columns of tables: ranges = {column: (low, high)}")
        else:
            numbers = {}
        found = {
            name: {"name": name, "range": [float(end) for end in ends]}
            for name, ends in numbers.items()
        } | categories
        if not found:
            raise ConfigError(
                "declare the columns from public knowledge: ranges = {column: (low, high)}, "
                "categories = {column: [...]}; taken from the tables they would be a release"
            )
        return found

    def _configuration(
        self, sites: Mapping[str, pd.DataFrame], target: str, folder: Path
    ) -> dict[str, Any]:
        names = [each for each in next(iter(sites.values())).columns if each != target]
        counts = self.records or {site: len(table) for site, table in sites.items()}
        plain = [each.item() if isinstance(each, np.generic) else each for each in self.classes]
        epsilon = str(Decimal(repr(float(self.epsilon))))
        budget = epsilon if self.budget is None else str(Decimal(repr(float(self.budget))))
        authority = {} if self.scheme == "masked" else {"custody": "authority"}
        return {
            "federation": {"name": "fit", "output": str(folder)},
            "privacy": {
                "epsilon": epsilon, "delta": str(Decimal(repr(float(self.delta)))),
                "budget_epsilon": budget, "colluders": self.colluders,
            },
            "training": {"model": "logistic", "rounds": 1},
            "secure": {"scheme": self.scheme, **authority},
            "data": {
                "features": list(self._declared(names).values()),
                "target": {"name": target, "classes": plain},
                "file": {"usual_missing": False},
            },
            "ask": {
                "epsilon": epsilon, "program": "scorecard", "settings": dict(self.settings or {}),
            },
            "sites": [
                {"name": site, "data": f"{site}.csv", "records": counts.get(site, len(table))}
                for site, table in sites.items()
            ],
        }  # fmt: skip
