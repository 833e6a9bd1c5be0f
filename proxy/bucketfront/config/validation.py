"""Turn plain data into `Settings`, and pydantic's errors into problems with a place and a fix."""

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bucketfront.config.fields import keys_below, nearest
from bucketfront.config.origin_settings import UNION_TAGS
from bucketfront.config.problems import Loc, Tree
from bucketfront.config.section import SettingError
from bucketfront.config.settings import Settings

_MESSAGES = {
    "missing": "missing, and there is no default",
    "string_type": "must be text; if it is, put it in quotes",
    "path_type": "must be a path",
    "tuple_type": "must be a list, for example [a, b]",
    "too_short": "must not be empty",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
}
_BOUNDS = {
    "gt": "must be more than",
    "ge": "must be at least",
    "lt": "must be less than",
    "le": "must be at most",
}
_NAMES_IN_MESSAGE = re.compile(r"'([^']*)'")


def validate(tree: Tree) -> Settings | None:
    """Return the settings, or None if `tree` has problems. Problems found here are added to it."""
    settings = None
    try:
        settings = Settings.model_validate(tree.data)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _note(tree, details)
    return settings if not tree.all_problems() else None


def _note(tree: Tree, details: ErrorDetails) -> None:
    # pydantic marks an error of a mapping's key, rather than of its value, by "[key]".
    loc: Loc = tuple(part for part in details["loc"] if part not in (*UNION_TAGS, "[key]"))
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        written = next((at for at in cause.at if at in tree.values), cause.at[0])
        tree.problem(cause.at[0], str(cause), tree.place(written))
    elif details["type"] == "too_short" and details["input"]:
        pass  # pydantic counts only valid items, and the invalid ones are reported themselves
    elif not tree.is_broken(loc):
        is_about_key = details["type"] == "extra_forbidden" or details["loc"][-1] == "[key]"
        key = tree.keys.get(loc) if is_about_key else None
        tree.problem(loc, _message(details, loc), key)


def _message(details: ErrorDetails, loc: Loc) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(str(loc[-1]), keys_below(loc[:-1]))
    if kind == "literal_error":
        return _not_allowed(details["input"], _NAMES_IN_MESSAGE.findall(context["expected"]))
    if kind == "value_error":
        return str(context["error"])
    if kind.startswith("model") and details["input"] is None:
        return "is empty: give it keys, or leave it out for the defaults"
    for bound, text in _BOUNDS.items():
        if bound in context:
            return f"{text} {context[bound]:g}"
    return _MESSAGES.get(kind, "is not valid")


def _unknown_key(name: str, names: list[str]) -> str:
    if name in names:
        return "does not go together with the keys beside it"
    near = nearest(name, names)
    return f"unknown key. Did you mean {near}?" if near else f"unknown key. Allowed: {', '.join(names)}"


def _not_allowed(given: object, allowed: list[str]) -> str:
    near = nearest(given, allowed) or nearest(given.upper(), allowed) if isinstance(given, str) else None
    hint = f". Did you mean {near}?" if near else ""
    return f"must be one of {', '.join(allowed)}{hint}"
