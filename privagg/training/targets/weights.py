"""Class weights: public numbers, or what follows from a count that was charged when asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from privagg.errors import ConfigError
from privagg.training.targets.base import Spent

Weight = Annotated[float, Field(gt=0, le=1e6)]


class CountedWeights(BaseModel):
    """Weights from an earlier asking: n / (k·count) for each of k classes, n all counts together.

    The counts' noise was charged when they were asked; what is made of them costs nothing more.

    Args:
        answers: the asking's `answers.json`, from the configuration's folder; at every party.
        sha256: of that file, so that all parties weigh alike.
        question: the name of its count by the target's column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    question: str


Weights = tuple[Weight, ...] | CountedWeights | None


def counted(
    source: CountedWeights, base: Path, column: str, labels: Sequence[str]
) -> tuple[tuple[float, ...], Spent]:
    """The weights that a charged count gives, and what it cost.

    Args:
        source: which count of which file.
        base: folder that its path starts from.
        column: the target's.
        labels: the classes, in their order.

    Raises:
        ConfigError: the file is not there, is another one, or has no such count of every class.
    """
    facts = _read(source, base)
    try:
        spent = Spent(str(facts["run"]), Decimal(facts["epsilon"]), Decimal(facts["delta"]))
        figures = next(
            answer["figures"]
            for answer in facts["answers"]
            if answer["question"]["name"] == source.question
        )
        counts = {
            each["group"][column]: float(each["value"])
            for each in figures
            if each["what"] == "count" and set(each["group"]) == {column}
        }
        found = [counts[label] for label in labels]
    except (KeyError, TypeError, ValueError, InvalidOperation, StopIteration) as error:
        raise ConfigError(
            f"{source.answers} has no answer {source.question!r} that counts records by {column!r} "
            f"in its classes {', '.join(labels)}; name a question of kind 'count' with "
            f"by = [{column!r}]"
        ) from error
    empty = [label for label, count in zip(labels, found, strict=True) if not count > 0]
    if empty:
        raise ConfigError(
            f"{source.answers}: the count of {column} = {empty[0]} is 0 within its noise, which "
            "gives no weight; declare class_weights as numbers, or ask with a larger share"
        )
    whole = sum(found) / len(found)
    return tuple(whole / count for count in found), spent


def _read(source: CountedWeights, base: Path) -> dict[str, Any]:
    path = base / source.answers
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"class_weights come from {path}, which cannot be read ({error.strerror}); put the "
            "asking's answers.json there, at every party"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise ConfigError(
            f"{path} has the SHA-256 {digest}, agreed is {source.sha256}: another asking's file, "
            "or one that was changed"
        )
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no file of answers: {error}") from error
    if not isinstance(facts, dict):
        raise ConfigError(f"{path} is no file of answers: it holds no object")
    return facts
