"""Python before 3.11.5 matches wrongly if a group is repeated possessively or is atomic (its issue 106052)."""

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from typing import Any

import bucketfront
from bucketfront.server.fast_path import recogniser


def patterns() -> Iterator[tuple[str, str | bytes]]:
    for found in pkgutil.walk_packages(bucketfront.__path__, "bucketfront."):
        if found.name.endswith(".__main__"):
            continue  # its import runs the command line
        for name, value in vars(importlib.import_module(found.name)).items():
            if isinstance(value, re.Pattern):
                yield f"{found.name}.{name}", value.pattern
    hosts = recogniser._host_of(("media.example.com", "media"))
    yield (
        "plain_request",
        recogniser._pattern(("origin",), ("user-agent", "range"), "x-forwarded-for", ("expect",), hosts),
    )


def items(parsed: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield every operation of a parsed pattern, however deep."""
    for op, argument in parsed:
        yield str(op), argument
        stack = [argument]
        while stack:
            each = stack.pop()
            if hasattr(each, "getwidth"):
                yield from items(each)
            elif isinstance(each, list | tuple):
                stack.extend(each)


def is_avoided(pattern: str | bytes) -> bool:
    parser = re._parser  # type: ignore[attr-defined] # nothing public tells what a pattern is made of
    for op, argument in items(parser.parse(pattern)):
        if op == "ATOMIC_GROUP":
            return True
        if op == "POSSESSIVE_REPEAT" and [str(kind) for kind, _ in argument[2]] not in (["IN"], ["LITERAL"], ["ANY"]):
            return True
    return False


def test_no_group_is_possessive() -> None:
    """Patterns repeat only single characters possessively."""
    found = dict(patterns())
    assert len(found) > 20
    assert [name for name, pattern in found.items() if is_avoided(pattern)] == []
    assert is_avoided("(?:ab?c)++")
    assert is_avoided("x(?:y(?>ab|a)c)")
    assert not is_avoided("[ab]*+c++(?:d|e)*")
