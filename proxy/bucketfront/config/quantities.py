"""Parse and format the quantities of the configuration: sizes, durations, percentages, numbers, prices, flags.

Each `parse_*` takes a value from YAML or the environment, and raises ValueError with the fix. No message quotes more
of its input than a number, because the input may be a misplaced secret (docs/invariants.md#secrets-stay-in).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MAX_SIZE_BYTES = (1 << 63) - 1  # the largest file offset and SQLite integer
MAX_PRICE = 1_000_000  # of any currency; more is a mistake
MAX_DURATION_S = 36_500 * 86_400  # a century; timers of the C library overflow a few orders of magnitude above it

_SIZES = {
    "TiB": TIB,
    "GiB": GIB,
    "MiB": MIB,
    "KiB": KIB,
    "TB": 10**12,
    "GB": 10**9,
    "MB": 10**6,
    "KB": 10**3,
    "kB": 10**3,
    "B": 1,
    "": 1,
}
_SIZE_FIXES = {
    **{f"{letter.lower()}{rest}": f"{letter}iB" for letter in "KMGT" for rest in ("", "i", "ib")},
    **{f"{letter.lower()}b": f"{letter}B" for letter in "KMGT"},
    **dict.fromkeys(("b", "byte", "bytes"), ""),
}
_SIZE_HELP = "must be a size: a number of bytes, or a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB"

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION_FIXES = {
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), "ms"),
}
_DURATION_HELP = "must be a duration: a number with ms, s, m, h or d, for example 90s"

_FLAG_FIXES = {
    **dict.fromkeys(("yes", "y", "on", "true"), "true"),
    **dict.fromkeys(("no", "n", "off", "false"), "false"),
}

_NUMBER = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?(.*)", re.DOTALL)
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Percent:
    """A share in percent: 0 <= value < 100."""

    value: float

    def of(self, total: int) -> int:
        """Return this share of `total`, rounded down, in the unit of `total`."""
        return int(total * self.value / 100)

    def __str__(self) -> str:
        return f"{self.value:.9f}".rstrip("0").rstrip(".") + "%"


_LONGEST_FIRST = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def parse_size(value: object) -> int:
    """Return the bytes of `10GiB`, `1GB`, `1.5MiB`, `512`, or of a whole number. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(_SIZE_HELP)  # noqa: TRY004 - pydantic turns ValueError alone into a validation error
    size = _measure(value, _SIZES, _SIZE_FIXES, _SIZE_HELP, finest="a whole byte")
    if size > MAX_SIZE_BYTES:
        raise ValueError("must be at most 2^63-1 bytes")
    return size


def parse_duration(value: object) -> float:
    """Return the seconds of `90s`, `1h`, `250ms`, `1.5d` or 0, in whole milliseconds. Raises ValueError.

    Another number without a unit is refused, because it may mean seconds or milliseconds.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(_DURATION_HELP)  # noqa: TRY004 - as in parse_size
    if value == "0":
        return 0.0
    milliseconds = _measure(value, _MILLISECONDS, _DURATION_FIXES, _DURATION_HELP, finest="a millisecond")
    if milliseconds > MAX_DURATION_S * 1000:
        raise ValueError(f"must be at most {format_duration(MAX_DURATION_S)}")
    return milliseconds / 1000


def parse_percent(value: object) -> Percent:
    """Return a percentage such as `5%`, at least 0 and below 100. Raises ValueError."""
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[3] != "%":
        raise ValueError("must be a percentage, for example 5%")
    percent = float(f"{match[1]}.{match[2] or 0}")
    if percent >= 100:
        raise ValueError("must be below 100%")
    return Percent(percent)


def parse_percentage(value: object) -> Percent:
    """Return a percentage, as `parse_percent` does, or one that was parsed before. Raises ValueError."""
    return value if isinstance(value, Percent) else parse_percent(value)


def parse_share(value: object) -> Percent | int:
    """Return a size in bytes, or a percentage. Raises ValueError."""
    if isinstance(value, Percent):
        return value
    if isinstance(value, str) and value.endswith("%"):
        return parse_percent(value)
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"{error}; or a percentage, for example 5%") from None


def parse_whole_number(value: object) -> int:
    """Return a decimal whole number, given as a number or as text. Raises ValueError.

    Text is accepted because the environment holds only text. A leading zero is refused because YAML 1.1 reads `010`
    as 8.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError("must be a whole number, written in decimal without leading zeros")


def parse_price(value: object) -> float:
    """Return an amount of money, at least 0, given as a number or as text such as `0.0004`. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        amount = float(value)
    else:
        match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
        if match is None or match[3]:
            raise ValueError("must be a price, for example 0.0004")
        amount = float(f"{match[1]}.{match[2] or 0}")
    if not 0 <= amount <= MAX_PRICE:
        raise ValueError(f"must be from 0 to {MAX_PRICE}")
    return amount


def parse_currency(value: object) -> str:
    """Return the code of a currency, three capital letters (ISO 4217). Raises ValueError."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha() and value.isupper():
        return value
    raise ValueError("must be a currency in three capital letters, for example USD")


def parse_flag(value: object) -> bool:
    """Return `true` or `false`, given as a boolean or as text. Raises ValueError."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    meant = _FLAG_FIXES.get(value.lower()) if isinstance(value, str) else None
    raise ValueError("must be true or false" + ("" if meant is None else f": write {meant}"))


def format_size(size: int) -> str:
    """Return the shortest exact text, in binary units, that `parse_size` reads back as `size` bytes."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """Return the text, in the largest whole unit, that `parse_duration` reads back as `seconds`."""
    milliseconds = round(seconds * 1000)
    for unit, factor in _MILLISECONDS.items():
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return "0s"


def rounded_duration(seconds: float) -> str:
    """Return a duration for people, rounded down to its two largest units, as in `4 min 12 s`."""
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for unit, length in _LONGEST_FIRST:
        count, left = divmod(left, length)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def format_share(share: Percent | int) -> str:
    """Return the text that `parse_share` reads back as `share`."""
    return str(share) if isinstance(share, Percent) else format_size(share)


def _measure(text: str, units: Mapping[str, int], fixes: Mapping[str, str], usage: str, *, finest: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(usage)
    whole, fraction, unit = match[1], match[2] or "", match[3]
    if unit not in units:
        fix = fixes.get(unit.strip().lower())
        if fix is None:
            raise ValueError(usage)
        number = whole + (f".{fraction}" if fraction else "")
        raise ValueError(f"must have a known unit: write {number}{fix}")
    scale: int = 10 ** len(fraction)
    amount, rest = divmod(int(whole + fraction) * units[unit], scale)
    if rest:
        raise ValueError(f"must not be finer than {finest}")
    return amount


# What an editor takes. A text with a `${VAR}` may become anything.
_AMOUNT, _SIZE_UNIT, _REFERENCE = r"[0-9]+(\.[0-9]+)?", "(TiB|GiB|MiB|KiB|TB|GB|MB|KB|kB|B)?", r"\$\{"
_SIZE_SCHEMA = {"type": ["integer", "string"], "minimum": 0, "pattern": f"^{_AMOUNT}{_SIZE_UNIT}$|{_REFERENCE}"}
_DURATION_SCHEMA = {
    "type": ["integer", "string"], "maximum": 0, "minimum": 0, "pattern": f"^({_AMOUNT}(d|h|m|s|ms)|0)$|{_REFERENCE}",
}  # fmt: skip
_PERCENT_SCHEMA = {"type": "string", "pattern": f"^{_AMOUNT}%$|{_REFERENCE}"}
_SHARE_SCHEMA = {**_SIZE_SCHEMA, "pattern": f"^{_AMOUNT}(%|{_SIZE_UNIT})$|{_REFERENCE}"}

# The string in each `Annotated` names the type in docs/configuration.md.
Size = Annotated[
    int,
    "size",
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema(_SIZE_SCHEMA, mode="validation"),
]
Duration = Annotated[
    float,
    "duration",
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(_DURATION_SCHEMA, mode="validation"),
]
Share = Annotated[
    Percent | int,
    "size or percentage",
    PlainValidator(parse_share),
    PlainSerializer(format_share, when_used="json"),
    WithJsonSchema(_SHARE_SCHEMA, mode="validation"),
]
Percentage = Annotated[
    Percent,
    "percentage",
    PlainValidator(parse_percentage),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema(_PERCENT_SCHEMA, mode="validation"),
]
WholeNumber = Annotated[int, "whole number", BeforeValidator(parse_whole_number)]
Port = Annotated[WholeNumber, Field(ge=0, le=65535)]
Price = Annotated[float, "price", BeforeValidator(parse_price)]
Currency = Annotated[str, "three capital letters", BeforeValidator(parse_currency)]
Flag = Annotated[bool, "`true` or `false`", BeforeValidator(parse_flag)]
