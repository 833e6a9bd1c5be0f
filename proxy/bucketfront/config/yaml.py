"""Read YAML as plain data, with the place of every key and value.

YAML is read as events, because PyYAML's constructors surprise operators and can be attacked. They keep the last of two
equal keys, read `010` as 8, `1:30` as 90 and `no` as false, and expand aliases without bound. Here equal keys, aliases
and tags are problems, numbers are decimal, and the depth and number of values are bounded.
"""

import re
from collections.abc import Callable
from typing import Any, Never

import yaml

from bucketfront.config.fields import takes_keys
from bucketfront.config.problems import Loc, Place, Source, Tree

MAX_DEPTH = 16  # the settings nest 4 deep
MAX_VALUES = 10_000  # bounds the time a hostile file can take

_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # YAML 1.1 section 4.2, as PyYAML counts lines
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}")
# A character of the text in a message of PyYAML. Its token names, such as '<scalar>', are no part of the text.
_QUOTED_CHARACTER = re.compile(r"""(character|found) (?!'<|'\\t')(?:'[^']*'|"'")""")
_EMPTY_SECTION = "is empty: give it keys, or leave it out; {} has the default of each key"
_EMPTY_VALUE = 'is empty: give it a value, or leave the key out; null and "" are values'
_UNSOUND = re.compile("[\x00\ud800-\udfff]")


class YamlError(Exception):
    """The text is not YAML, or uses a part of YAML that is not supported here."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.message = message
        self.place = place


def compose(source: Source, tree: Tree, at: Loc = (), fill: Callable[[str], str] | None = None) -> object:
    """Return the data of the one document in `source`, or None if it is empty.

    Places and problems are added to `tree`, below `at`. `fill` replaces the `${VAR}` of a scalar and may raise
    ValueError; without it `${VAR}` is plain text. Raises YamlError.
    """
    return _Composer(source, tree, fill).compose(at)


def is_sound(text: str) -> bool:
    """Return whether `text` can be a path, a header and UTF-8."""
    return _UNSOUND.search(text) is None


class _Composer:
    def __init__(self, source: Source, tree: Tree, fill: Callable[[str], str] | None) -> None:
        self._source = source
        self._tree = tree
        self._fill = fill
        self._values = 0
        self._loader: Any = None  # PyYAML's parser has no types

    def compose(self, at: Loc) -> object:
        try:
            self._loader = yaml.SafeLoader(self._source.text)
            self._loader.get_event()  # the start of the stream
            if self._loader.check_event(yaml.StreamEndEvent):
                return None
            self._loader.get_event()  # the start of the document
            data = self._node(at)
            self._loader.get_event()  # the end of the document
            if not self._loader.check_event(yaml.StreamEndEvent):
                self._fail("one document is enough: remove what follows", self._loader.peek_event().start_mark)
            return data
        except yaml.reader.ReaderError as error:
            before = _LINE_BREAK.split(self._source.text[: error.position])
            place = Place(self._source, len(before) - 1, len(before[-1]))
            raise YamlError(f"not valid YAML: character #x{int(error.character):04x}", place) from None
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error) from None
        except (ValueError, OverflowError):  # PyYAML passes an escape like "\UFFFFFFFF" on to chr()
            raise YamlError("not valid YAML", self._place(self._loader.get_mark())) from None

    def _syntax(self, error: yaml.MarkedYAMLError) -> YamlError:
        problem, mark = error.problem or "", error.problem_mark
        if error.context_mark is not None and (mark is None or "end of stream" in problem):
            mark = error.context_mark  # the opening quote helps more than the end of the file
            problem = f"{problem} {error.context}"
        if mark is None:
            return YamlError("not valid YAML", Place(self._source))
        place = self._place(mark)
        if "tag" in problem:
            return YamlError("YAML tags are not understood", place)
        problem = _QUOTED_CHARACTER.sub(_without_character, problem)
        hint = ""
        if self._source.text[: mark.index + 1].endswith("${"):
            hint = '; inside { } and [ ] write "${VAR}", in quotes'
        elif "\t" in self._line_up_to(mark):
            hint = "; indent with spaces, because YAML takes no tab there"
        return YamlError(f"not valid YAML: {problem}{hint}", place)

    def _line_up_to(self, mark: Any) -> str:
        """Return the text of the mark's line, up to the marked character and with it."""
        return str(self._source.text[mark.index - mark.column : mark.index + 1])

    def _fail(self, message: str, mark: yaml.Mark) -> Never:
        raise YamlError(message, self._place(mark))

    def _place(self, mark: Any) -> Place:
        return Place(self._source, mark.line, mark.column)

    def _node(self, loc: Loc) -> object:
        event = self._loader.get_event()
        self._tree.values[loc] = self._place(event.start_mark)
        self._values += 1
        if self._values > MAX_VALUES:
            self._fail(f"more than {MAX_VALUES} values: this is no configuration file", event.start_mark)
        if len(loc) > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._tree.break_value(loc, "YAML aliases are not understood: write the value out")
        value: object
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(loc)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(loc)
        else:
            value = self._scalar(event, loc)
        if event.tag is not None:
            message = "YAML tags are not understood: remove the one with '!', and quote what is text"
            return self._tree.break_value(loc, message)
        return value

    def _sequence(self, loc: Loc) -> list[object]:
        items: list[object] = []
        while not self._loader.check_event(yaml.SequenceEndEvent):
            items.append(self._node((*loc, len(items))))
        self._loader.get_event()
        return items

    def _mapping(self, loc: Loc) -> dict[str, object]:
        items: dict[str, object] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            event = self._loader.get_event()
            if not isinstance(event, yaml.ScalarEvent):
                self._fail("a key must be plain text", event.start_mark)
            name, place = event.value, self._place(event.start_mark)
            below = (*loc, name)
            if name in items:
                first = self._tree.keys[below].line + 1
                self._tree.problem(below, f"duplicate key, first on line {first}", place)
            else:
                self._tree.keys[below] = place
            items[name] = self._node(below)
        self._loader.get_event()
        return items

    def _scalar(self, event: yaml.ScalarEvent, loc: Loc) -> object:
        text: str = event.value
        is_plain = event.style is None
        if is_plain and not text and loc:
            return self._tree.break_value(loc, _EMPTY_SECTION if takes_keys(loc) else _EMPTY_VALUE)
        if self._fill is not None and "${" in text:
            try:
                text = self._fill(text)
            except ValueError as error:
                return self._tree.break_value(loc, str(error), self._reference(event))
            is_plain = False  # fields parse numbers and flags from text themselves
        if not is_sound(text):
            return self._tree.break_value(loc, "must not hold a NUL or a lone surrogate")
        return _plain_value(text) if is_plain else text

    def _reference(self, event: Any) -> Place:
        """Return the place of the first `${` of a scalar."""
        start, end = event.start_mark, event.end_mark
        offset = self._source.text.find("${", start.index, end.index)
        lines = _LINE_BREAK.split(self._source.text[start.index : max(offset, start.index)])
        column = len(lines[-1]) + (start.column if len(lines) == 1 else 0)
        return Place(self._source, start.line + len(lines) - 1, column)


def _without_character(match: re.Match[str]) -> str:
    """Drop a character that may be part of a secret (docs/invariants.md#secrets-stay-in)."""
    return "character" if match[1] == "character" else "found another character"


def _plain_value(text: str) -> object:
    """Return the value of an unquoted scalar: a decimal number, true, false or null. Anything else is text."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
