"""Apply the environment and the options of a command to the file's settings.

`BUCKETFRONT_A__B=…` takes precedence over `a: {b: …}`, and an option over both. `${VAR}` inside a value is replaced.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Any

from pydantic import SecretStr

from bucketfront.config.fields import keys_below, nearest, takes_items, takes_keys, types_at
from bucketfront.config.problems import PREFIX, Loc, Place, Source, SourceKind, Tree, variable_name
from bucketfront.config.yaml import YamlError, compose, is_sound

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")
_MAX_ALIKE = 3  # settings in one hint
_ITEM = re.compile("[0-9]{1,4}")
_NO_SETTINGS = frozenset({"BUCKETFRONT_CONFIG"})  # the command line reads it
# Kubernetes, "Service: environment variables", and the links of Docker that it copies. `…_PORT` has a URL.
_OF_SERVICES = re.compile(
    r"BUCKETFRONT_(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?|ENV_\w+|NAME)"
)
_URL_OF_SERVICE = re.compile(r"(?:tcp|udp|sctp)://")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` with every `${VAR}` replaced once and `$${` turned into `${`.

    Raises ValueError, with no value in its message.
    """
    names = [match[1] for match in _REFERENCE.finditer(text) if match[0] != "$${"]
    unset = dict.fromkeys(name for name in names if name is not None and name not in environ)
    if unset:
        raise ValueError(f"not set in the environment: {', '.join(unset)}; write $${{ for a plain ${{")
    if None in names:
        raise ValueError("'${' needs a variable's name and a '}' behind it; write $${ for a plain ${")
    return _REFERENCE.sub(lambda match: "${" if match[0] == "$${" else environ[match[1]], text)


def variables(environ: Mapping[str, str]) -> list[Source]:
    """Return the variables that are meant for bucketfront."""
    return [
        Source(name, value, SourceKind.VARIABLE, loc)
        for name, value in environ.items()
        if (loc := _location(name, value)) is not None
    ]


def override(tree: Tree, sources: Iterable[Source]) -> None:
    """Replace values in `tree` by those of variables or options: shallow ones first, list items in order."""
    seen: dict[Loc, str] = {}
    for source in sorted(sources, key=_depth_first):
        loc, place = source.loc, Place(source)
        if not types_at(loc):
            tree.problem(loc, _unknown_variable(loc), place)
        elif seen.setdefault(loc, source.name) != source.name:
            tree.problem(loc, f"set twice, as {seen[loc]} too", place)
        else:
            try:
                container = _open_container(tree, source)
            except ValueError as error:
                tree.problem(loc, str(error), place)
            else:
                tree.values[loc] = place
                _put(container, loc[-1], _value(tree, loc, place))


def _depth_first(source: Source) -> tuple[int, list[tuple[bool, str | int]]]:
    return len(source.loc), [(isinstance(part, str), part) for part in source.loc]


def _location(name: str, value: str) -> Loc | None:
    """Return the setting that a variable is meant for, or None if it is not meant for bucketfront.

    Kubernetes and Docker use the prefix as well, for a service or a link whose name begins with `bucketfront`.
    """
    upper = name.upper()
    if not upper.startswith(PREFIX) or upper in _NO_SETTINGS or _OF_SERVICES.fullmatch(upper):
        return None
    if upper.endswith("_PORT") and _URL_OF_SERVICE.match(value):
        return None
    parts = name[len(PREFIX) :].lower().split("__")
    return tuple(int(part) if _ITEM.fullmatch(part) else part for part in parts)


def _unknown_variable(loc: Loc) -> str:
    # The usual mistake is one underscore in place of two.
    if meant := _flat_names().get(_flat(variable_name(loc))):
        return f"unknown setting. Did you mean {_with_numbers(meant, variable_name(loc))}?"
    if len(loc) == 1 and (alike := _alike(variable_name(loc))):
        return f"unknown setting. Did you mean {' or '.join(alike)}?"
    known = next(end for end in range(len(loc) - 1, -1, -1) if types_at(loc[:end]))
    names = keys_below(loc[:known])
    if not names:
        item = "takes items by number" if takes_items(loc[:known]) else "has no keys below it"
        return f"unknown setting: {variable_name(loc[:known])} {item}"
    near = nearest(str(loc[known]), names)
    if near is not None:
        return f"unknown setting. Did you mean {variable_name((*loc[:known], near, *loc[known + 1 :]))}?"
    return f"unknown setting. Allowed: {', '.join(variable_name((*loc[:known], name)) for name in names)}"


@cache
def _flat_names() -> dict[str, str]:
    """Return the variable of each setting by its name with one underscore in place of two."""
    names = [variable_name(loc) for loc in _all_settings(())]
    return {_flat(name): name for name in names}


def _all_settings(loc: Loc) -> Iterator[Loc]:
    for part in (0,) if takes_items(loc) else keys_below(loc):
        yield (*loc, part)
        yield from _all_settings((*loc, part))


def _alike(name: str) -> list[str]:
    """Return the settings with the last part of a name, as of BUCKETFRONT_TOKEN, or else the one most like it."""
    flat, names = _flat(name).removeprefix(PREFIX), _flat_names()
    if found := [full for full in names.values() if full.endswith(f"__{flat}")]:
        return found[:_MAX_ALIKE]
    near = nearest(flat, (name.removeprefix(PREFIX) for name in names))
    return [] if near is None else [names[PREFIX + near]]


def _flat(name: str) -> str:
    return re.sub(r"(?<=_)[0-9]{1,4}(?=_|$)", "0", name.replace("__", "_"))


def _with_numbers(name: str, given: str) -> str:
    """Return the name with the list positions of a given one."""
    numbers = iter(re.findall(r"(?<=_)[0-9]{1,4}(?=_|$)", given))
    return re.sub(r"(?<=__)0(?=__|$)", lambda _: next(numbers, "0"), name)


def _open_container(tree: Tree, source: Source) -> Any:
    """Return the container of the setting, and remove its old value. Adds missing containers. Raises ValueError."""
    container: Any = tree.data
    loc = source.loc
    for end, part in enumerate(loc, start=1):
        if isinstance(part, int) and part > len(container):
            raise ValueError(f"the list has {len(container)} items: number {len(container)} is the next one")
        if end == len(loc):
            break
        child = _get(container, part)
        wanted = list if isinstance(loc[end], int) else dict
        if not isinstance(child, wanted):
            place = tree.values.get(loc[:end])
            if place is not None and place.source.kind is source.kind:
                raise ValueError(f"contradicts {place}")
            tree.forget(loc[:end])
            child = wanted()
            _put(container, part, child)
        container = child
    tree.forget(loc)
    return container


def _get(container: Any, part: str | int) -> object:
    if isinstance(part, int):
        return container[part] if part < len(container) else None
    return container.get(part)


def _put(container: Any, part: str | int, value: object) -> None:
    if isinstance(part, int) and part == len(container):
        container.append(value)
    else:
        container[part] = value


def _value(tree: Tree, loc: Loc, place: Place) -> object:
    """Return the value of a variable: YAML for sections and lists, else plain text.

    Plain text is not parsed, because a token may hold '#', '{' or ': '.
    """
    text = place.source.text
    if not is_sound(text):
        return tree.break_value(loc, "must be UTF-8", place)
    if text.lstrip()[:1] in ("[", "{") and (takes_keys(loc) or takes_items(loc)):
        try:
            return compose(place.source, tree, loc)
        except YamlError as error:
            column = f" (line {error.place.line + 1}, column {error.place.column + 1})"
            return tree.break_value(loc, error.message + column, place)
    kinds = types_at(loc)
    return None if text == "null" and NoneType in kinds and SecretStr not in kinds else text
