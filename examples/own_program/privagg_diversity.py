"""How evenly records are spread over a column's categories: a program of one's own for privagg.

With n records, n_c of them in category c, and p_c = n_c / n:

    entropy H = -sum p_c log p_c          (0: all are alike; log k: k categories, all as frequent)
    Gini-Simpson G = 1 - sum p_c^2        (of two records, how likely their categories differ)

A record adds S to the one integer of its category, so no record moves the sum by more than S in L2.
Integers n̂_c = n_c + noise of standard deviation s are opened; for f = H or G, by the delta method,

    Var f ≈ s^2 · sum (df/dn_c)^2         for these records: the noise alone
            + (1/n) · Var_p(df/dp_c)      for the population: sampling too
"""

from decimal import Decimal

import numpy as np

from privagg.privacy.plan import OpeningTerms
from privagg.programs.answers import Answer, Figure, Interval, around, count_figure
from privagg.programs.content import Content, OfContent
from privagg.programs.questions.columns import categories_of
from privagg.programs.sums_program import SumsProgram

S = 2**10


class Asked(Content):
    """What is asked: `column` stands under [ask.settings], the rest comes from the file itself."""

    column: str


class Diversity(OfContent, SumsProgram):
    """Entropy and Gini-Simpson index of a column with declared categories."""

    name = "diversity"
    asks = Asked

    def __init__(self, content: Asked) -> None:
        super().__init__(content)
        self.categories = categories_of(content.data, content.column)

    def openings(self, noise_multiplier: Decimal):
        cells = len(self.categories)
        return (
            OpeningTerms(
                length=cells, sensitivity_grid=S, largest_grid=S, noise_multiplier=noise_multiplier
            ),
        )

    def integers(self, number, state, records):
        cell = records.codes(self.content.column)  # their number where it is none of them
        return (cell[:, None] == np.arange(len(self.categories))).astype(np.int64) * S

    def answers(self, sums):
        counts, s = sums[0].total / S, sums[0].stddev / S
        column, level = self.content.column, self.level
        figures = [
            count_figure(float(n), {column: category}, s, level)
            for n, category in zip(counts, self.categories, strict=True)
        ]
        n = float(np.maximum(counts, 0).sum())
        if n < 3 * s * len(counts) ** 0.5:  # too few records for the noise
            nothing = Interval(-np.inf, np.inf)
            spread = [
                Figure(f, {}, None, 0.0, nothing, nothing) for f in ("entropy", "Gini-Simpson")
            ]
        else:
            p = np.clip(counts / n, 1 / n, 1)
            p /= p.sum()
            h, g = -(p * np.log(p)).sum(), 1 - (p**2).sum()
            spread = [
                self._figure("entropy", h, -np.log(p) - 1, p, n, s, np.log(len(p))),
                self._figure("Gini-Simpson", g, -2 * p, p, n, s, 1.0),
            ]
        question = {"name": column, "about": f"how evenly records are spread over {column}"}
        return (Answer(question, (*spread, *figures)),)

    def _figure(self, what, value, slope, p, n, s, most):
        centred = slope - (p * slope).sum()  # df/dn_c = (df/dp_c - sum p df/dp) / n
        noise, sampling = s**2 * (centred**2).sum() / n**2, (p * centred**2).sum() / n
        ends = (around(value, v**0.5, self.level, (0.0, most)) for v in (noise, noise + sampling))
        return Figure(what, {}, float(value), float(value), *ends)
