"""Checks that every scheme shares: requirements, contributions, opened sums, untrusted facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

import numpy as np

from privagg.encoding.vectors import IntVector
from privagg.errors import CapacityError, CiphertextError, ParameterError
from privagg.secure.scheme import Buffer, Parameters, Requirement

Own = TypeVar("Own", bound=Parameters)

MAX_LENGTH = 1 << 32
MAX_BOUND = (1 << 62) - 1  # a sum within it fits int64 with a bit to spare
MAX_ADDENDS = 1 << 20


def check_requirement(requirement: Requirement) -> Requirement:
    """Return the requirement if a scheme can reason about it.

    Raises:
        ParameterError: a number that is not a whole number in its range; names it.
    """
    limits = {
        "length": (1, MAX_LENGTH),
        "upload_bound": (1, MAX_BOUND),
        "sum_bound": (1, MAX_BOUND),
        "addends": (1, MAX_ADDENDS),
        "security_bits": (1, 256),
    }
    for name, (low, high) in limits.items():
        value = getattr(requirement, name)
        if type(value) is not int or not low <= value <= high:
            raise ParameterError(f"{name} must be a whole number in [{low}, {high}], not {value!r}")
    return requirement


def sum_bound(requirement: Requirement, count: int | None = None) -> int:
    """Largest magnitude that a sum of `count` contributions can have (None: a full cohort)."""
    addends = requirement.addends if count is None else count
    return min(requirement.sum_bound, requirement.upload_bound * addends)


def check_count(requirement: Requirement, count: int) -> None:
    """Raise CiphertextError unless 1 <= count <= addends: nothing else was proved to open."""
    if not 1 <= count <= requirement.addends:
        raise CiphertextError(
            f"a sum of {count} contributions cannot be opened: the parameters hold "
            f"1 to {requirement.addends}"
        )


def check_contribution(values: IntVector, requirement: Requirement) -> IntVector:
    """Return `values` as a contiguous int64 vector within the requirement's upload bound.

    The message never contains a value: it may leave the site, the values must not.

    Args:
        values: int64 (d,), one site's contribution; private.
        requirement: what the parameters were chosen for.

    Raises:
        CapacityError: not an int64 vector of the right length, or a coordinate beyond the bound.
    """
    if not isinstance(values, np.ndarray) or values.dtype != np.int64:
        found = getattr(values, "dtype", type(values).__name__)
        raise CapacityError(f"a contribution must be a numpy int64 vector, not {found}")
    if values.shape != (requirement.length,):
        raise CapacityError(
            f"a contribution must have shape ({requirement.length},), not {values.shape}"
        )
    bound = requirement.upload_bound
    if int(values.max()) > bound or int(values.min()) < -bound:
        raise CapacityError(
            f"a coordinate lies beyond the bound of +-{bound} that the parameters were chosen for; "
            "clip or choose parameters for a larger upload_bound"
        )
    return np.ascontiguousarray(values)


def own(parameters: Parameters, kind: type[Own]) -> Own:
    """The parameters, if they are of a scheme's own kind.

    Raises:
        ParameterError: they are another scheme's.
    """
    if not isinstance(parameters, kind):
        raise ParameterError(f"parameters are of scheme {parameters.scheme!r}, not {kind.scheme!r}")
    return parameters


def share_from(values: IntVector, requirement: Requirement, count: int) -> bytes:
    """An opened sum as a share: little-endian int64, every coordinate within the proven range.

    Args:
        values: int64 (d,).
        requirement: what the parameters were chosen for.
        count: contributions in the sum.

    Raises:
        CiphertextError: a coordinate that no honest contributions sum to.
    """
    check_opened(values, requirement, count)
    return values.astype("<i8", copy=False).tobytes()


def sum_of_one(shares: Sequence[bytes], requirement: Requirement, count: int) -> IntVector:
    """The opened sum where one party holds the key: the one share is the sum.

    Args:
        shares: what key holders answered.
        requirement, count: as for `sum_from`.

    Raises:
        CiphertextError: no or several shares, or as `sum_from`.
    """
    if len(shares) != 1:
        raise CiphertextError(f"expected one opening share, got {len(shares)}")
    return sum_from(shares[0], requirement, count)


def sum_from(share: Buffer, requirement: Requirement, count: int) -> IntVector:
    """Read a share made by `share_from`; int64 (d,), a fresh array.

    Args:
        share: 8 d bytes.
        requirement: what the parameters were chosen for.
        count: contributions in the sum.

    Raises:
        CiphertextError: wrong size, or a coordinate outside the proven range.
    """
    check_count(requirement, count)
    size = memoryview(share).nbytes
    if size != 8 * requirement.length:
        raise CiphertextError(f"opening share has {size} bytes instead of {8 * requirement.length}")
    values = np.frombuffer(share, dtype="<i8").astype(np.int64)
    check_opened(values, requirement, count)
    return values


def check_opened(values: IntVector, requirement: Requirement, count: int) -> None:
    """Refuse an opened sum that no honest contributions have.

    Args:
        values, requirement, count: as for `share_from`.

    Raises:
        CiphertextError: a coordinate beyond what `count` contributions can reach.
    """
    bound = sum_bound(requirement, count)
    if int(values.max()) > bound or int(values.min()) < -bound:
        raise CiphertextError(
            f"the opened sum has a coordinate beyond +-{bound}, which {count} honest contributions "
            "cannot reach: a contribution is malformed or the count is wrong"
        )


def requirement_to_dict(requirement: Requirement) -> dict[str, Any]:
    """JSON-ready fields of a requirement."""
    return asdict(requirement)


def requirement_from_dict(facts: Any) -> Requirement:
    """Rebuild and check a requirement (untrusted input).

    Raises:
        ParameterError: not a mapping of exactly the known fields, or a field out of range.
    """
    known = {field.name for field in fields(Requirement)}
    require_keys(facts, known, "requirement")
    return check_requirement(Requirement(**{name: facts[name] for name in known}))


def require_keys(facts: Any, known: set[str], what: str) -> None:
    """Require a mapping with exactly the keys `known`.

    Args:
        facts: whatever came (untrusted input).
        known: the keys.
        what: the facts are of; begins the error's message.

    Raises:
        ParameterError: anything else.
    """
    if not isinstance(facts, Mapping):
        raise ParameterError(f"{what} must be a table of facts, not {type(facts).__name__}")
    if set(facts) != known:
        raise ParameterError(
            f"{what} has fields {sorted(map(str, facts))}; expected exactly {sorted(known)}"
        )


def require_options(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The options with defaults filled in.

    Args:
        options: name -> value, as a configuration gives them.
        known: name -> default.

    Raises:
        ParameterError: an option the scheme does not know.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ParameterError(
            f"unknown option {unknown[0]!r}; known: {', '.join(sorted(known)) or 'none'}"
        )
    return {**known, **options}
