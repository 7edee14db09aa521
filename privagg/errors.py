"""Every error privagg raises on purpose, in one tree.

A message says what was wrong, with which value, and what to do about it. Each class carries the
exit code of the command line (2 for anything the user or a peer can cause) and whether the message
may leave the party that raised it: a refusal that depends on private data is itself a release, so
such an error stays with the data's owner (`public = False`).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import ErrorDetails, ValidationError

LONGEST_VALUE = 80
"""Characters of a value that a message repeats, at most."""


class PrivaggError(Exception):
    """Root of the tree; catching it catches every deliberate refusal of this library.

    Attributes:
        exit_code: what the command line exits with.
        public: True where the message depends on public facts only and may be sent to a peer.
    """

    exit_code: int = 2
    public: bool = True


# --- configuration and data, before anything is spent -------------------------------------------


class ConfigError(PrivaggError):
    """The configuration cannot be used: unknown key, wrong type, contradiction, missing file."""


class ProgramMissingError(ConfigError):
    """A program is asked, or was, that no package installed here has."""


class PlanError(ConfigError):
    """The plan contradicts itself or promises what its numbers cannot hold."""


class CalibrationError(PlanError):
    """No noise multiplier in the allowed range meets the wanted guarantee."""


class ModelError(ConfigError):
    """The model cannot be trained with per-record gradients (a layer that mixes records, say)."""


class ResumeError(ConfigError):
    """A run that was begun cannot be resumed as it is started now."""


class DataError(PrivaggError):
    """An institution's own data does not fit its declaration; shown to the owner only."""

    public = False


class MissingDependencyError(PrivaggError):
    """An optional part of privagg was asked for that is not installed."""


# --- privacy -------------------------------------------------------------------------------------


class PrivacyError(PrivaggError):
    """A privacy rule would be broken."""


class UnknownEventError(PrivacyError):
    """An accountant was given an event it has no proof for; it refuses rather than guess."""


class CertificationError(PrivacyError):
    """A bound could not be enclosed with the effort allowed; nothing is claimed."""


class WorkLimitError(CertificationError):
    """A bound costs more than a verification may compute; nothing is known of it."""


class ApprovalError(PrivacyError):
    """No act of the data's owner covers what is asked for."""


class BudgetExceededError(PrivacyError):
    """The ledger's projection for this charge lies above the data set's budget."""


class SearchError(PrivacyError):
    """A search over settings ended without a candidate to select; its charges stay."""


class NoiseError(PrivacyError):
    """Noise was asked for outside the range in which its guarantee is proved."""


class LedgerError(PrivaggError):
    """The ledger cannot be used as it is: missing, locked, of another version, contradictory."""


class LedgerTamperedError(LedgerError):
    """The ledger's entries do not match its own hashes, signatures or checkpoints."""


class ReceiptError(LedgerError):
    """A receipt is forged, for another round, or already used."""


# --- encoding and encryption ---------------------------------------------------------------------


class EncodingError(PrivaggError):
    """A value cannot be put on the grid or taken off it."""


class CapacityError(EncodingError):
    """The grid, packing or modulus has no proven room for the sum that is asked of it."""


class SchemeError(PrivaggError):
    """An encryption scheme is unknown, misconfigured or was used against its contract."""


class ParameterError(SchemeError):
    """No parameters of the scheme meet the length, range, cohort and security level together."""


class KeyMismatchError(SchemeError):
    """A tensor, message or request names another key than the one pinned."""


class KeyErasedError(SchemeError):
    """The key of a run is gone, as was promised: nothing is opened under it any more."""


class CiphertextError(SchemeError):
    """Ciphertext bytes are malformed, out of range or of other parameters."""


# --- the protocol --------------------------------------------------------------------------------


class ProtocolError(PrivaggError):
    """A party received what the protocol does not allow here."""


class MessageError(ProtocolError):
    """Bytes that are not a message of a known kind and version, or lie about their own size."""


class SignatureError(ProtocolError):
    """A signature does not verify against the identity key pinned for its sender."""


class ReplayError(ProtocolError):
    """A message for this (run, round, attempt, sender) was already accepted."""


class WrongRoundError(ProtocolError):
    """A message belongs to another run, round, attempt or plan."""


class UnknownPartyError(ProtocolError):
    """The sender is not on the roster, or not in this round's cohort."""


class CohortError(ProtocolError):
    """Too few contributions survived for the round to be opened under the plan's rule."""


class OpeningRefusedError(ProtocolError):
    """The key holder refuses to open: cohort, signatures, or a second opening of one round."""


# --- running on several machines ------------------------------------------------------------------


class DeploymentError(PrivaggError):
    """A part of a deployment cannot be made, started or reached, or ended badly."""


class CertificateError(DeploymentError):
    """A certificate is expired, of another authority, for another host, or no certificate."""


class PortInUseError(DeploymentError):
    """Another process listens where a part of the deployment is to listen."""


class RunInProgressError(DeploymentError):
    """Another process drives the same run already."""


class AppRefusedError(DeploymentError):
    """A Flower app carries code that the owner of this machine has not approved."""


# --- verification ---------------------------------------------------------------------------------


class VerificationError(PrivaggError):
    """A report or bundle does not verify."""

    exit_code = 1


class UnreadableBundleError(VerificationError):
    """Bytes that are no report and no bundle of a known version; nothing in them was judged."""

    exit_code = 2


# --- words for what a model's checking found -----------------------------------------------------

_WHOLE_NUMBER = "should be a whole number, such as 20"
_NUMBER = "should be a number with a decimal point, such as 0.2 or 1e-5"
_YES_OR_NO = "should be true or false, without quotation marks"
_SECTION = "should be a section or table of `key = value`"
_LIST = "should be a list in square brackets, such as [1, 2]"
_BYTES = "should be bytes"
_DATE = "should be a day written as 2026-12-31"
_DAY = "should be a day and time, such as 2026-12-31T12:00:00Z"

WORDS = {
    "bool_parsing": _YES_OR_NO,
    "bool_type": _YES_OR_NO,
    "bytes_too_long": "should have at most {max_length} bytes",
    "bytes_too_short": "should have at least {min_length} bytes",
    "bytes_type": _BYTES,
    "bytes_invalid_encoding": _BYTES,
    "date_from_datetime_inexact": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_parsing": _DATE,
    "date_type": _DATE,
    "datetime_from_date_parsing": _DAY,
    "datetime_object_invalid": _DAY,
    "datetime_parsing": _DAY,
    "datetime_type": _DAY,
    "decimal_max_digits": "should have at most {max_digits} digits",
    "decimal_max_places": "should have at most {decimal_places} digits after the point",
    "decimal_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_whole_digits": "should have at most {whole_digits} digits before the point",
    "dict_type": _SECTION,
    "enum": "should be {expected}",
    "extra_forbidden": "is not known here; remove it or correct its spelling",
    "finite_number": "should be finite, neither infinite nor `nan`",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "should be greater than {gt}",
    "greater_than_equal": "should be at least {ge}",
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": "should be a whole number of fewer digits",
    "int_type": _WHOLE_NUMBER,
    "invalid-json-value": "should be text, a number, true, false, a list or a table",
    "invalid_key": "has a key that is no text",
    "is_instance_of": "should be of the type {class}",
    "iterable_type": _LIST,
    "json_invalid": "is not JSON: {error}",
    "json_type": "should be JSON",
    "less_than": "should be less than {lt}",
    "less_than_equal": "should be at most {le}",
    "list_type": _LIST,
    "literal_error": "should be {expected}",
    "mapping_type": _SECTION,
    "missing": "is missing; add it",
    "model_attributes_type": _SECTION,
    "model_type": _SECTION,
    "none_required": "should be left out",
    "recursion_loop": "contains itself",
    "recursion_depth_exceeded": "is nested too deeply",
    "string_pattern_mismatch": "does not have the form that is asked for, {pattern}",
    "string_too_long": "should have at most {max_length} characters",
    "string_too_short": "should have at least {min_length} characters",
    "string_type": "should be text, in quotation marks",
    "string_unicode": "should be text in UTF-8",
    "timezone_aware": "should name its time zone, such as Z",
    "too_long": "should have at most {max_length} entries, not {actual_length}",
    "too_short": "should have at least {min_length} entries, not {actual_length}",
    "tuple_type": _LIST,
    "union_tag_invalid": "should have {discriminator} among {expected_tags}",
    "union_tag_not_found": "lacks {discriminator}, which says what kind of thing it is",
}
"""What is wrong by pydantic's name of the fault, with what its context fills in."""


def validation_faults(
    error: ValidationError, *, whole: str = "value", most: int = 3, values: bool = True
) -> str:
    """What a model's checking found wrong, in one line: where, what, and the value shortened.

    Args:
        error: as pydantic raised it.
        whole: stands for the place where the object as a whole is at fault.
        most: so many faults are said, of the others how many they are.
        values: False where an input may be secret, or is too strange to be repeated.
    """
    faults = error.errors(include_url=False, include_input=values)
    said = "; ".join(_fault(fault, whole) for fault in faults[:most])
    return said + (f" (and {len(faults) - most} more)" if len(faults) > most else "")


def fault_text(fault: ErrorDetails) -> str:
    """One fault without its place: what was wrong, and the value shortened where it is a plain one.

    The words are privagg's own, whichever library found the fault. A mapping or list is not
    repeated: the text names the value in it that is wrong.
    """
    text = fault_words(fault)
    given = fault.get("ctx", {}).get("tag", fault.get("input"))
    if "input" not in fault or isinstance(given, Mapping | list | tuple):
        return text
    return f"{text} (got {_as_given(given)})"


def fault_words(fault: ErrorDetails) -> str:
    """What was wrong, without place and value."""
    if fault["type"] in ("value_error", "assertion_error"):
        return fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    context = dict(fault.get("ctx", {}))
    if context.get("expected") in ("True", "False"):
        context["expected"] = context["expected"].lower()  # as files spell it
    if "discriminator" in context:  # a key, or the function that reads it
        context["discriminator"] = context["discriminator"].removesuffix("()")
    return WORDS.get(fault["type"], "cannot be used here").format_map(context)


def _as_given(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)[:LONGEST_VALUE]
    return repr(text) if isinstance(value, str) or not text.isprintable() else text


def _fault(fault: ErrorDetails, whole: str) -> str:
    place = ".".join(map(str, fault["loc"]))[:LONGEST_VALUE] or whole  # a stranger's key is in it
    return f"{place if place.isprintable() else ascii(place)}: {fault_text(fault)}"
