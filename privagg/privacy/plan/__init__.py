"""Plans: the only source of truth about sampler, clip, noise, normaliser and event.

`Plan` is what the rest of the house asks; `TrainingPlan` is the first family of plans, with one
class for each of three ways to be private.
"""

from privagg.privacy.plan.base import Plan, SiteTerms
from privagg.privacy.plan.client import ClientPlan
from privagg.privacy.plan.compression import Compression, Rounding
from privagg.privacy.plan.distributed import DistributedPlan
from privagg.privacy.plan.local import LocalPlan
from privagg.privacy.plan.modes import load_plan, mode_names, plan_class, plan_mode
from privagg.privacy.plan.record import RecordPlan
from privagg.privacy.plan.training import TrainingPlan

__all__ = [
    "ClientPlan",
    "Compression",
    "DistributedPlan",
    "LocalPlan",
    "Plan",
    "RecordPlan",
    "Rounding",
    "SiteTerms",
    "TrainingPlan",
    "load_plan",
    "mode_names",
    "plan_class",
    "plan_mode",
]
