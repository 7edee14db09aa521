"""How numbers are written for a person: epsilon always rounded up, infinity said in words."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal, localcontext

from privagg.privacy.accountant import round_up
from privagg.report.language import say


def epsilon_text(value: Decimal, digits: int = 3) -> str:
    """An epsilon with `digits` significant digits, never smaller than it is; `∞` if infinite."""
    if value.is_infinite():
        return "∞"
    return _plain(round_up(value, digits))


def lower_text(value: Decimal, digits: int = 3) -> str:
    """A proven lower end with `digits` significant digits, never larger than it is.

    Zeros at the end of `value` are not written: a report that was read again has none.
    """
    if value.is_infinite():
        return "∞"
    with localcontext() as context:
        context.prec = max(digits, len(value.as_tuple().digits))
        value = value.normalize()
        context.prec = digits
        context.rounding = ROUND_FLOOR
        return _plain(+value)


def _plain(value: Decimal) -> str:
    """Without exponent, unless that takes more than 14 characters."""
    if value == 0:
        return "0"
    text = format(value, "f")
    return text if len(text) <= 14 else power_text(value)


def power_text(value: Decimal) -> str:
    """A positive number by its power of ten: `10⁻⁵`, `2.5·10⁻⁶`."""
    _, digits, exponent = value.normalize().as_tuple()
    assert isinstance(exponent, int)
    power = exponent + len(digits) - 1
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if digits[1:] else "")
    raised = f"10{superscript(power)}"
    return raised if mantissa == "1" else f"{mantissa}·{raised}"


def delta_text(value: Decimal) -> str:
    """A delta: plain where that is short, else by its power of ten."""
    plain = format(value.normalize(), "f")
    return plain if len(plain) <= 4 else power_text(value)


def superscript(number: int) -> str:
    """An integer in superscript digits."""
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def relative_text(value: Decimal, proven: Decimal) -> str:
    """How far `value` lies from `proven`, in per cent with sign: `+4.2 %`, `−0.0007 %`."""
    if proven == 0 or not proven.is_finite() or not value.is_finite():
        return ""
    per_cent = (value - proven) / proven * 100
    if per_cent == 0:
        return say("equal")
    size = abs(per_cent)
    near = Decimal(f"{size:.2g}")
    digits = format(near, "f") if size >= Decimal("0.001") else power_text(near)
    return f"{'+' if per_cent > 0 else '−'}{digits} %"


def byte_unit(largest: int) -> tuple[float, str]:
    """The divisor and name of the decimal unit in which `largest` reads well."""
    for divisor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if largest >= divisor:
            return divisor, unit
    return 1.0, "bytes"


def byte_text(count: int) -> str:
    """A number of bytes in decimal units, three significant digits."""
    divisor, unit = byte_unit(count)
    return say("{n} bytes", n=count) if divisor == 1 else f"{count / divisor:.3g} {unit}"


def second_text(seconds: float) -> str:
    """A duration a person reads at a glance: `850 µs`, `12 ms`, `3.4 s`, `2 min 5 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return say("{n} min {n2} s", n=minutes, n2=rest)
    return say("{n} h {n2} min", n=minutes // 60, n2=minutes % 60)


def count_text(number: int, singular: str, plural: str | None = None) -> str:
    """`1 round`, `30 rounds`.

    Args:
        number: how many.
        singular: the word for one.
        plural: the word for several; by default the singular with an s.
    """
    noun = singular if number == 1 else plural or f"{singular}s"
    return say(f"{{n}} {noun}", n=f"{number:,}".replace(",", " "))


def joined(words: list[str], most: int = 6) -> str:
    """`A, B and C`; long lists end in `and 9 more`."""
    between = say(", ")
    if len(words) > most:
        more = len(words) - most + 1
        return say("{items} and {n} more", items=between.join(words[: most - 1]), n=more)
    if len(words) <= 1:
        return "".join(words)
    return say("{items} and {last}", items=between.join(words[:-1]), last=words[-1])
