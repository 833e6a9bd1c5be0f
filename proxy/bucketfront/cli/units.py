"""Numbers as people read them in columns."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(octets: float) -> str:
    """Return a number of bytes in three or four digits, such as 1.25 MiB."""
    for unit in _UNITS:
        if octets < 1000 or unit == _UNITS[-1]:
            break
        octets /= 1024
    return f"{octets:.0f} {unit}" if unit == "B" or octets >= 100 else f"{octets:.3g} {unit}"


def rate(per_s: float) -> str:
    """Return a number per second, such as 12,345 or 0.25."""
    return f"{per_s:,.0f}" if per_s >= 100 or not per_s else f"{per_s:.3g}"


def ratio(share: float | None) -> str:
    """Return a share as a percentage, or a dash if there is none."""
    return "-" if share is None else f"{share * 100:.1f} %"


def milliseconds(ms: float) -> str:
    """Return a duration in its best unit, such as 0.42 ms, 120 ms or 12.5 s."""
    return f"{ms:.0f} ms" if 100 <= ms < 1000 else f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1000:,.3g} s"


def printable(text: str) -> str:
    """Return the text without characters that could act on a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
