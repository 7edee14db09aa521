"""Every kind of question, told apart by its `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from privagg.programs.questions.counts import Count, Missing
from privagg.programs.questions.covariance import Covariance
from privagg.programs.questions.cox import Cox
from privagg.programs.questions.linear import Linear
from privagg.programs.questions.logistic import Logistic
from privagg.programs.questions.moments import Mean
from privagg.programs.questions.poisson import Poisson
from privagg.programs.questions.quantiles import Quantiles
from privagg.programs.questions.survival import Survival

AnyQuestion = Annotated[
    Count | Mean | Quantiles | Missing | Covariance | Linear | Logistic | Poisson | Survival | Cox,
    Field(discriminator="kind"),
]
