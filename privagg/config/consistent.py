"""What the sections of a file say together: contradictions are refused, each by name."""

from __future__ import annotations

from pydantic import ValidationError

from privagg.config.algorithms import unfit
from privagg.config.data import AppData, ImageData, TableData, UndeclaredData, table_to_ask
from privagg.config.unread import unread
from privagg.config.whole import Whole
from privagg.errors import ConfigError, fault_words, validation_faults
from privagg.privacy.plan import plan_class
from privagg.privacy.unit import Custody
from privagg.programs.evaluation import Evaluation, OpenedModel
from privagg.programs.facts.program import Facts
from privagg.programs.registry import QUESTIONS
from privagg.protocol.names import COORDINATOR, KEY_HOLDER
from privagg.training.declared import ModelSpec
from privagg.training.targets import ClassKind

_ASKED_BY_THEIR_OWN = {
    Facts.name: "[facts]",
    Evaluation.name: "[evaluation] with private = true",
}
"""Program -> the section that asks it."""

_TRAINS = {
    "model",
    "local_steps",
    "local_learning_rate",
    "local_batch_size",
    "proximal_mu",
    "physical_batch",
    "engine",
    "optimizer",
    "retries",
    "loss",
    "algorithm",
    "continues",
}
"""Settings of training that a Flower app and its strategy have in their own place."""


def require_consistent(config: Whole) -> None:
    """Refuse sections that contradict each other, or that nothing would read.

    Args:
        config: each of its sections is right by itself.

    Raises:
        ValueError: which settings, and what to write.
    """
    names = [site.name for site in config.sites]
    reserved = sorted({COORDINATOR, KEY_HOLDER} & set(names))
    if reserved:
        raise ValueError(f"a site cannot be called {reserved[0]!r}; that name is a party's")
    if {"requirement", "self"} & set(config.secure.options):
        raise ValueError("secure.options cannot set the requirement; it follows from the plan")
    if config.secure.opener is not None and config.secure.opener not in names:
        raise ValueError(f"secure.opener {config.secure.opener!r} is none of the sites")
    bits = config.compression and config.compression.bits
    if bits and "sensitivity_grid" in config.privacy.model_fields_set:
        raise ValueError(
            "compression.bits sets the grid, and so would privacy.sensitivity_grid; keep one"
        )
    if isinstance(config.data, ImageData) and any(site.labels is None for site in config.sites):
        raise ValueError("image sites need `labels`, the path of their labels' .npy file")
    _each_site_has_data_or_an_app(config)
    _facts_can_be_asked(config)
    _files_fit(config)
    _questions_can_be_asked(config)
    _model_can_be_centred(config)
    _search_has_its_metric(config)
    _held_out_records_are_of_tables(config)
    _sites_come_and_go(config)
    _model_can_go_on(config)
    if found := [*unread(config), *unfit(config)]:
        raise ValueError("; ".join(found))


def _model_can_go_on(config: Whole) -> None:
    if config.training.continues is not None and config.training.model.centred:
        raise ValueError(
            "a model that is `centred` begins by opening its intercept twice, and one that goes on "
            "has it: leave `centred` out of [training.model], or remove [training.continues]"
        )


def _sites_come_and_go(config: Whole) -> None:
    """Refuse, where sites join or leave between rounds, what has no answer for that."""
    changing = [s for s in config.sites if (s.first_round, s.last_round) != (None, None)]
    if not changing:
        return
    name, private = changing[0].name, config.private_evaluation
    if config.training.rounds is None:
        raise ValueError(f"{name!r} joins or leaves between rounds; then say training.rounds")
    if config.tuning is not None or (private is not None and private.rounds is not None):
        section = "[tuning]" if config.tuning is not None else "[evaluation.rounds]"
        raise ValueError(
            f"{name!r} joins or leaves between rounds, and {section} would ask it beyond them: "
            f"remove {section}, or first_round and last_round"
        )
    if config.training.algorithm.kind != "fedavg":
        raise ValueError(
            f"{name!r} joins or leaves between rounds, and training.algorithm "
            f"{config.training.algorithm.kind!r} counts on the same sites in every round: leave "
            "one of both out"
        )
    if config.secure.custody is not Custody.SITES:
        return
    stay = [site.name for site in config.sites if site not in changing]
    if not stay or config.secure.opener not in {None, *stay}:
        raise ValueError(
            f"{config.secure.opener or name!r} joins or leaves between rounds, and the site that "
            "opens has to be there in each: name another as secure.opener"
        )


def _files_fit(config: Whole) -> None:
    if isinstance(config.data, UndeclaredData) and config.facts is not None:
        schema = table_to_ask(config.data, config.facts.columns).table_schema
    elif isinstance(config.data, TableData):
        schema = config.data.table_schema
    else:
        return
    named = {f"sites[{site.name}]": site for site in config.sites}
    for place, one in {**named, "evaluation": config.public_table}.items():
        if one is None:
            continue
        try:
            written = one.file.over(config.data.file)
        except ValidationError as error:
            raise ValueError(
                f"{place}.file with data.file: {'; '.join(map(fault_words, error.errors()))}"
            ) from error
        if strange := next(written.strange_to(schema), ""):
            raise ValueError(f"{place}.file: {strange}")


def _model_can_be_centred(config: Whole) -> None:
    training, compression = config.training, config.compression
    if not training.model.centred:
        return
    classes = not isinstance(config.data, TableData) or isinstance(config.data.target, ClassKind)
    whole = compression is None or compression.keep == 1
    rounds = training.rounds is None or training.rounds > 2
    fits = config.privacy.mode == "record-distributed" and training.loss is None
    if not (fits and classes and whole and rounds):
        raise ValueError(
            "a model that is `centred` needs privacy.mode = 'record-distributed', a target of "
            "classes with its own loss, at least 3 rounds and uploads of all coordinates; "
            "leave `centred` out"
        )


def _questions_can_be_asked(config: Whole) -> None:
    if config.ask is None and not config.questions:
        return
    if config.ask is None:
        raise ValueError("[[questions]] need [ask] with epsilon, what they may cost together")
    if (section := _ASKED_BY_THEIR_OWN.get(config.ask.program)) is not None:
        raise ValueError(
            f"ask.program = {config.ask.program!r} reads the sites' records in a way of its own; "
            f"write {section}, and remove ask.program"
        )
    own = config.ask.program == QUESTIONS
    if own and not config.questions:
        raise ValueError("[ask] needs a question: add a [[questions]] section, or remove [ask]")
    if own and config.ask.settings:
        raise ValueError("[ask.settings] are another program's: name it as ask.program")
    if not own and config.ask.noise != "auto":
        raise ValueError(
            f"ask.noise = {config.ask.noise!r} is for [[questions]]; what noise "
            f"{config.ask.program!r} has, it says itself: remove ask.noise"
        )
    if not own and config.questions:
        raise ValueError(
            f"[[questions]] beside ask.program = {config.ask.program!r} would not be asked; "
            "keep one of both"
        )
    if config.ask.settings.keys() & {"data", "level"}:
        raise ValueError("[ask.settings] may not say `data` or `level`: they are said above")
    if not isinstance(config.data, TableData):
        raise ValueError(
            "questions are asked of the columns of tables; with data.kind = "
            f"{config.data.kind!r} there are none: remove [ask] and [[questions]]"
        )
    try:
        if config.trains:
            return
        config.ask.program_over(
            config.data.table_schema,
            config.questions,
            config.declared_records,
            config.privacy.delta,
        )
    except ValidationError as error:
        told = "; ".join(map(fault_words, error.errors()))
        if not own:
            told = f"[ask.settings] of {config.ask.program!r}: {validation_faults(error)}"
        raise ValueError(told) from error
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _search_has_its_metric(config: Whole) -> None:
    if config.tuning is None or isinstance(config.data, AppData):
        return
    measures = (*config.data.target.measures, "loss")
    if config.tuning.metric not in measures:
        raise ValueError(
            f"tuning.metric = {config.tuning.metric!r} is no figure of this target; choose one "
            f"of {', '.join(measures)}"
        )


def _facts_can_be_asked(config: Whole) -> None:
    if config.facts is None:
        return
    if not isinstance(config.data, TableData | UndeclaredData):
        raise ValueError(
            f"[facts] asks of the columns of tables; with data.kind = {config.data.kind!r} there "
            "are none: remove [facts]"
        )
    try:
        config.facts.program_over(table_to_ask(config.data, config.facts.columns).table_schema)
    except ValidationError as error:
        raise ValueError("; ".join(map(fault_words, error.errors()))) from error
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _held_out_records_are_of_tables(config: Whole) -> None:
    private = config.private_evaluation
    if private is None or isinstance(config.data, AppData | UndeclaredData):
        return
    if not isinstance(config.data, TableData):
        raise ValueError(
            "evaluation.private is for tables, whose columns are declared; with data.kind = "
            f"{config.data.kind!r} evaluate on a table declared public"
        )
    anything = OpenedModel(
        spec=ModelSpec(), seed=0, sha256="0" * 64, parameters=1, parameters_sha256="0" * 64
    )
    try:
        _ = Evaluation(config.evaluated(anything))
        if config.schedule is not None:
            _ = Evaluation(
                config.evaluated_rounds(OpenedModel(spec=ModelSpec(), seed=0, parameters=1))
            )
    except ValidationError as error:
        raise ValueError("; ".join(map(fault_words, error.errors()))) from error
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _each_site_has_data_or_an_app(config: Whole) -> None:
    app = isinstance(config.data, AppData)
    for site in config.sites:
        if not site.data and not app:
            raise ValueError(f"site {site.name!r} needs `data`, where its records are")
    if app and (plan_class(config.privacy.mode).sees_records or config.evaluation is not None):
        raise ValueError(
            "with a Flower app, privagg sees updates and no records: use privacy.mode = "
            "'client' and no [evaluation]"
        )
    own = config.training.model_fields_set & _TRAINS if app else set()
    if own:
        raise ValueError(f"a Flower app trains by its own rule; remove training.{min(own)}")
