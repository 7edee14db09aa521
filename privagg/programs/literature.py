"""What of federated learning's literature is here, as rows: the one source of CLI and README."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CLIENT, LOCAL, DISTRIBUTED = "client", "record-local", "record-distributed"
_EVERY = (DISTRIBUTED, LOCAL, CLIENT)


@dataclass(frozen=True)
class Algorithm:
    """One algorithm.

    Args:
        name: how the literature calls it.
        how: the setting, or command, that has it.
        modes: of privacy, under which it runs.
        opened: what a round opens; each opening is charged.
        leaks: what is learned beside what the noise hides.
        paper: whose it is.
        differs: from the paper; empty where it does not.
    """

    name: str
    how: str
    modes: tuple[str, ...]
    opened: str
    leaks: str
    paper: str
    differs: str = ""


@dataclass(frozen=True)
class Missing:
    """What is not here, and why."""

    name: str
    reason: str


ALGORITHMS = (
    Algorithm(
        "FedSGD, DP-SGD", "mode `record-distributed`", (DISTRIBUTED,), "1 sum of clipped gradients",
        "who took part", "Abadi et al. 2016; McMahan et al. 2017", "the noise is shared out",
    ),
    Algorithm(
        "FedAvg, FedProx", "modes `record-local`, `client`", (LOCAL, CLIENT), "1 sum of updates",
        "who took part", "McMahan et al. 2017, 2018; Li et al. 2020",
        "weights are public; a cohort is not amplified",
    ),
    Algorithm(
        "FedOpt, FedAvgM", "`training.optimizer`", _EVERY, "as the mode's", "nothing more",
        "Reddi et al. 2021; Hsu et al. 2019",
    ),
    Algorithm(
        "Reptile", "`local_steps`, then `privagg personalise`", (CLIENT,), "1 sum of updates",
        "nothing more", "Nichol, Achiam & Schulman 2018", "tasks are sites",
    ),
    Algorithm(
        "SCAFFOLD", "`algorithm = \"scaffold\"`", (LOCAL, CLIENT), "1 sum of updates",
        "nothing more", "Karimireddy et al. 2020; Noble et al. 2022",
        "option II, every site in every round; variates of noised updates",
    ),
    Algorithm(
        "FedPer, FedRep, FedBN", "`algorithm = { kind = \"fedper\", personal = [\"3.*\"] }`",
        (CLIENT,), "1 sum of shared blocks", "whoever is served a personal model: all (∞)",
        "Arivazhagan et al. 2019; Collins et al. 2021; Li et al. 2021",
        "layers that normalise keep no running statistics",
    ),
    Algorithm(
        "Fine-tuning, Ditto, MR-MTL", "`privagg personalise`", _EVERY, "nothing",
        "whoever is served a personal model: all (∞), but for one that is charged: a run of one "
        "site under `record-local` with `[training.continues]`",
        "Li et al. 2021; Liu et al. 2022", "after the run, from the opened model",
    ),
    Algorithm(
        "Per-FedAvg", "`algorithm = { kind = \"per-fedavg\", … }`", (CLIENT,), "1 sum of updates",
        "nothing more", "Fallah et al. 2020", "the Hessian is of the inner batch, as in MAML",
    ),
    Algorithm(
        "Adaptive clipping", "`algorithm = \"adaptive-clip\"`", (CLIENT,),
        "1 sum of updates and their count", "how many were clipped, noised",
        "Andrew et al. 2021", "count and update under one clip",
    ),
    Algorithm(
        "FedMA", "`algorithm = \"fedma\"`, `sites.network`", (CLIENT,),
        "1 sum of updates in slots' order, and each slot's count",
        "how many fill each slot, noised", "Wang et al. 2020",
        "sites match their neurons to published slots, all layers at once; no slot is made",
    ),
    Algorithm(
        "FedBoost", "`[ask] program = \"fedboost\"`", (DISTRIBUTED,),
        "1 sum of gradients in ensemble weights", "which predictors a round sends, drawn publicly",
        "Hamer, Mohri & Suresh 2020", "predictors are public; the step is exponentiated",
    ),
    Algorithm(
        "Contribution scores", "`algorithm = \"halves\"`", (CLIENT,), "1 sum of a drawn half",
        "who is in which half", "Ghorbani & Zou 2019; Wang et al. 2020",
        "a regression on halves; leaving one out is refused: two such sums differ by one update",
    ),
    Algorithm(
        "FedDistill by votes, PATE", '`[ask] program = "distill"`', (DISTRIBUTED,),
        "1 sum of the votes of shards' models, of any kind at each site", "nothing more",
        "Papernot et al. 2017, 2018; Jeong et al. 2018; Li & Wang 2019",
        "all queries in one opening; √2 a query is charged whether votes agree or not",
    ),
    Algorithm(
        "FedDistill by class logits", '`algorithm = "class-logits"`, `sites.network`', (CLIENT,),
        "1 sum of mean logits and shares by class", "whoever is served a personal model: all (∞)",
        "Jeong et al. 2018",
        "a site counts in a class by its records' share of it, its own logits with the others'",
    ),
    Algorithm(
        "Head or adapters (LoRA)", "`training.model.trainable`", _EVERY, "as the mode's",
        "nothing more", "Hu et al. 2022", "the base is public and pinned",
    ),
)  # fmt: skip
"""What can be run; programs of one's own (`privagg.programs`) stand beside it."""

NOT_HERE = (
    Missing("Vertical partition", "gradients are products of two parties' data, no sums of "
            "integers that each computes alone; the residuals that are exchanged leak logits"),
    Missing("Asynchronous buffers (FedBuff)", "a mask needs a list of contributors before it is "
            "made, and arrival times, which depend on records, would decide who is in a sum"),
    Missing("Robust medians", "a median is no sum; single updates would have to be opened, and a "
            "bound on one site's harm holds by the scheme's range alone"),
    Missing("Banded matrix noise (DP-FTRL, BandMF)", "noise that is correlated over rounds has to "
            "be kept at each party, and a site that drops out leaves a hole in it; "
            "`privagg epsilon --mechanism tree-aggregation` accounts for it"),
    Missing("Leave-one-out scores", "two sums differ by one site's update"),
    Missing("Local state at record level", "what a site keeps depends on all of its records, so "
            "that one more moves every later upload"),
    Missing("Proofs of correct clipping", "a dishonest site is bounded by the range alone"),
)  # fmt: skip
"""What is not, with the reason."""


def markdown() -> Iterator[str]:
    """README's two tables, line by line."""
    yield "| algorithm | how | modes | a round opens | leaks besides | paper; where it differs |"
    yield "|---|---|---|---|---|---|"
    for each in ALGORITHMS:
        modes = "all" if each.modes == _EVERY else ", ".join(f"`{mode}`" for mode in each.modes)
        paper = "; ".join(filter(None, (each.paper, f"*{each.differs}*" if each.differs else "")))
        cells = (each.name, each.how, modes, each.opened, each.leaks, paper)
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "| not here | because |"
    yield "|---|---|"
    yield from (f"| {each.name} | {each.reason} |" for each in NOT_HERE)
