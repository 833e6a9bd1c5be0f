"""Look up in the models of the settings which types a location takes, and which keys exist below it."""

import difflib
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from bucketfront.config.problems import Loc
from bucketfront.config.settings import Settings


def types_at(loc: Loc) -> list[Any]:
    """Return the types that the setting at `loc` may have. The list is empty if there is no such setting."""
    found: list[Any] = [Settings]
    for part in loc:
        below: list[Any] = []
        for kind in found:
            if isinstance(part, int):
                below += get_args(kind)[:1] if _is_list(kind) else []
            elif _is_section(kind) and part in kind.model_fields:
                below.append(kind.model_fields[part].annotation)
            elif get_origin(kind) is dict:
                below.append(get_args(kind)[1])
        found = [kind for annotation in below for kind in _alternatives(annotation)]
    return found


def sections_at(loc: Loc) -> list[type[BaseModel]]:
    """Return the models of the sections that may be at `loc`."""
    return [kind for kind in types_at(loc) if _is_section(kind)]


def keys_below(loc: Loc) -> list[str]:
    """Return the keys that exist below `loc`."""
    return list(dict.fromkeys(name for model in sections_at(loc) for name in model.model_fields))


def takes_items(loc: Loc) -> bool:
    """Return whether `loc` may be a list."""
    return any(_is_list(kind) for kind in types_at(loc))


def takes_keys(loc: Loc) -> bool:
    """Return whether `loc` may be a mapping of keys."""
    return any(_is_section(kind) or get_origin(kind) is dict for kind in types_at(loc))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that was probably meant, or None if no name is close."""
    return next(iter(difflib.get_close_matches(name, list(names), 1)), None)


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for branch in get_args(annotation):
            yield from _alternatives(branch)
    else:
        yield annotation


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple
