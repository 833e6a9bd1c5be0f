"""The JSON Schema of `proxy.yaml`, with which editors complete keys, explain them and mark mistakes.

The schema takes every file that the loader takes. It refuses less, because it knows no rules between settings.
"""

import json
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from bucketfront.config.docstrings import texts_of
from bucketfront.config.section import Section
from bucketfront.config.settings import Settings

# Editors know this draft best. It has all that the settings need.
_DIALECT = "http://json-schema.org/draft-07/schema#"
_REFERENCE = {"type": "string", "pattern": r"\$\{"}
_NOT_TEXT = ("integer", "number", "boolean")
_BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}  # as pydantic has them


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles, which repeat the names of the keys."""
        del schema
        return False


def schema() -> dict[str, Any]:
    """Return the schema of a whole file."""
    found = Settings.model_json_schema(schema_generator=_WithoutTitles)
    models = {model.__name__: model for model in _sections(Settings)}
    for name, section in found["$defs"].items():
        _describe(section, models[name])
    _describe(found, Settings)
    description = "The configuration of bucketfront. docs/configuration.md has each key."
    return {"$schema": _DIALECT, **_with_references(found), "title": "bucketfront", "description": description}


def _sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the section and all that it may hold, some of them several times."""
    yield model
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            yield from _sections(part)


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)


def _describe(section: dict[str, Any], model: type[BaseModel]) -> None:
    """Give each key of a section its text, its default as the file would have it, and its examples as data."""
    section.pop("title", None)
    texts = texts_of(model)
    defaults = model.model_construct().model_dump(mode="json")
    for name, key in section["properties"].items():
        if name in texts:
            key["description"] = texts[name]
        if "examples" in key:
            key["examples"] = [_as_json(example) for example in key["examples"]]
        key.pop("default", None)
        # The default of a section is that of its keys.
        if not model.model_fields[name].is_required() and not (isinstance(defaults[name], dict) and defaults[name]):
            key["default"] = defaults[name]


def _as_json(example: str) -> Any:
    """Return an example as JSON has it: with text as the keys of its mappings."""
    return json.loads(json.dumps(yaml.safe_load(example)))


def _with_references(node: Any) -> Any:
    """Return the schema so that a value which is no text may be a text with a `${VAR}`."""
    if isinstance(node, list):
        return [_with_references(item) for item in node]
    if not isinstance(node, dict):
        return node
    below = {
        _BOUNDS.get(key, key): node[key] if key in ("default", "examples") else _with_references(node[key])
        for key in node
    }
    if node.get("type") not in _NOT_TEXT and not ("enum" in node or "const" in node):
        return below
    notes = {key: below.pop(key) for key in ("default", "description", "examples") if key in below}
    return {"anyOf": [below, dict(_REFERENCE)], **notes}
