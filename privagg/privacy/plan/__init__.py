"""Plans: the only source of truth about sampler, clip, noise, normaliser and event.

`Plan` is what the rest of the house asks; `TrainingPlan` is the first family of plans, with one
class for each of three ways to be private. Nothing outside this room asks which class a plan has,
but the table of what trains under each, and a Flower app, which needs a plan for whole clients
(`ClientPlan.require`).

To add a way to be private (`tests/privacy/test_new_mode.py` does):

1. `privacy/plan/NAME.py`: its class, under `@plan_mode`; where records are sampled it extends
   `RecordPlan`, where noise is shared out `SharedNoisePlan`. What is left is its own: noise,
   bounds, events, observers, and what it is in words.
2. `privacy/plan/__init__.py`: import it, so that it is known by its mode.
3. `programs/learners.py`: what a site computes, with its line in `LEARNERS`.
4. `config/sections.py`: where it has settings of its own, each by the name of the plan's field.
5. `cli/template.toml`: the same settings, with a word on the mode.
6. `tests/privacy/test_NAME.py`, and what it adds to `proofs/` and to README's table.
"""

from privagg.privacy.plan.agreed import AgreedPlan
from privagg.privacy.plan.base import Plan, RoundPlan
from privagg.privacy.plan.client import ClientPlan
from privagg.privacy.plan.compression import Compression, Rounding
from privagg.privacy.plan.distributed import DistributedPlan
from privagg.privacy.plan.local import LocalPlan
from privagg.privacy.plan.modes import load_plan, mode_names, plan_class, plan_mode
from privagg.privacy.plan.record import RecordPlan
from privagg.privacy.plan.roster import Epoch, SiteTerms
from privagg.privacy.plan.sharing import SharedNoisePlan
from privagg.privacy.plan.sums import OpeningTerms, SumsPlan
from privagg.privacy.plan.training import TrainingPlan

__all__ = [
    "AgreedPlan",
    "ClientPlan",
    "Compression",
    "DistributedPlan",
    "Epoch",
    "LocalPlan",
    "OpeningTerms",
    "Plan",
    "RecordPlan",
    "RoundPlan",
    "Rounding",
    "SharedNoisePlan",
    "SiteTerms",
    "SumsPlan",
    "TrainingPlan",
    "load_plan",
    "mode_names",
    "plan_class",
    "plan_mode",
]
