"""List the settings in force, each with its source, and none with its secret (docs/invariants.md#secrets-stay-in)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from bucketfront.config.problems import Loc, Place, SourceKind, Tree, dotted
from bucketfront.config.secret_file import SecretFile
from bucketfront.config.section import Section
from bucketfront.config.settings import Settings

MASK = "********"


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting in force. `value` is plain data as the file would have it, and `place` is where it was written.

    `place` is missing for a default.
    """

    loc: Loc
    value: Any
    source: SourceKind
    place: str | None

    @property
    def key(self) -> str:
        return dotted(self.loc)

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.key, "value": self.value, "source": self.source.value, "place": self.place}


def effective_settings(settings: Settings, tree: Tree) -> list[EffectiveSetting]:
    """Return all settings in the order of the models. `tree` has the places of those that were written."""
    written = _written(tree)
    found = []
    for loc, value in _leaves(settings, settings.model_dump(mode="json"), ()):
        place = written.get(loc)
        kind = SourceKind.DEFAULT if place is None else place.source.kind
        found.append(EffectiveSetting(loc, value, kind, None if place is None else str(place)))
    return found


def _written(tree: Tree) -> dict[Loc, Place]:
    """Return the place of each value. If a part of it has another source, the one that takes precedence counts."""
    found = dict(tree.values)
    for loc, place in tree.values.items():
        for end in range(len(loc)):
            around = found.get(loc[:end])
            if around is None or around.source.kind.precedence < place.source.kind.precedence:
                found[loc[:end]] = place
    return found


def _leaves(value: Any, dumped: Any, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Yield what is no section, and has none inside. `dumped` is the value as plain data, with its secrets masked."""
    below: list[tuple[str | int, Any]] = []
    if isinstance(value, Section):
        below = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
        below = list(enumerate(value))
    elif isinstance(value, dict) and any(isinstance(item, Section) for item in value.values()):
        below = list(value.items())
    for part, child in below:
        yield from _leaves(child, dumped[part], (*loc, part))
    if not below:
        yield loc, _shown(value, dumped)


def _shown(value: Any, dumped: Any) -> Any:
    if isinstance(value, SecretFile):
        return f"file:{value.path}"
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [_shown(item, plain) for item, plain in zip(value, dumped, strict=True)]
    if isinstance(value, dict):
        return {key: _shown(item, dumped[key]) for key, item in value.items()}
    if isinstance(value, str) and "://" in value and "?" in value:
        return f"{value.partition('?')[0]}?{MASK}"  # an app's URL may have its key in the query
    return dumped
