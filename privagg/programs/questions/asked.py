"""Every kind of question, told apart by its `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from privagg.programs.questions.counts import Count, Missing
from privagg.programs.questions.moments import Mean
from privagg.programs.questions.quantiles import Quantiles

AnyQuestion = Annotated[Count | Mean | Quantiles | Missing, Field(discriminator="kind")]
