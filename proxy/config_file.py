"""From `proxy.yaml` and the environment to `Settings`, with every problem named by its place.

Rule 1: all problems are reported at once; a later stage does not report what an earlier one broke.
Rule 2: environment over file over default.
Rule 3: no secret reaches a message (I28). Source lines are shown up to where a secret begins.
Rule 4: whatever the bytes, the outcome is `Settings` or `ConfigError`.

YAML is read as events, not through PyYAML's constructors: those keep the last of two equal keys, read `010`
as 8, `1:30` as 90 and `no` as false, and expand aliases without bound.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Never, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from proxy.config import UNION_TAGS, SettingError, Settings
from proxy.errors import ConfigError

PREFIX = "BUCKETFRONT_"
MAX_FILE_BYTES = 1 << 20
MAX_SECRET_BYTES = 64 << 10
MAX_DEPTH = 16  # our own settings nest 4 deep
MAX_VALUES = 10_000  # bounds the time a hostile file can take
MAX_PROBLEMS = 100
MAX_COLUMNS = 160  # of a source line in a message

Loc = tuple[str | int, ...]

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # YAML 1.1 section 4.2, what PyYAML counts as line breaks
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}")
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")
_FILE = "file:"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SECRET_NAMES = ("token", "access_key_id", "secret_access_key", "session_token", "credentials", "password")
_SECRET_WORD = re.compile(r"(?:secret|token|passw|credential|acc?ess?_?key|key_?id)[\w-]*[\"']?\s*:?", re.IGNORECASE)
_KEY = re.compile(r"(?<![\w-])([\w-]++)[\"']?\s*+:")  # possessive: linear on a line of any length
_PLAIN_KEY = re.compile(r"[\s-]*[a-z_]+")
_USER_INFO = re.compile(r"//[^/\s]*@")
_UNSOUND = re.compile("[\x00\ud800-\udfff]")
_NAMES_IN_MESSAGE = re.compile(r"'([^']*)'")


class _Unusable:
    """Stands where a value would, once its problem is known: fits no type."""

    def __repr__(self) -> str:
        return "<unusable>"


_UNUSABLE = _Unusable()


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of the file at `path` (None: no file), under the `BUCKETFRONT_` variables of `environ`.

    Raises ConfigError, whose message holds all problems. The file's read `proxy.yaml:12:3 cache.max_szie:
    unknown key. Did you mean max_size?`, with the source line and a caret; the others `BUCKETFRONT_X__Y: …`.
    """
    tree = _Tree()
    if path is not None:
        _load_file(Source(str(path), _read(path)), tree, environ)
    _override(tree, environ)
    _read_secrets(tree, tree.data, ())
    settings = _validate(tree)
    if settings is None:
        raise ConfigError(_report(tree.all_problems()))
    return settings


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from None
    if len(octets) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: more than {MAX_FILE_BYTES} bytes: this is no configuration file")
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "not a usable path"


def _load_file(source: "Source", tree: "_Tree", environ: Mapping[str, str]) -> None:
    tree.values[()] = Place(source)
    try:
        data = _Composer(source, tree, environ).compose()
    except _YamlError as error:
        raise ConfigError(str(Problem((), error.message, error.place))) from None
    if isinstance(data, dict):
        tree.data = data
    elif data is not None and () not in tree.broken:
        tree.problem((), "must be a mapping of sections, such as 'mounts:'")


# ---- Places and problems -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A text and what to call it in messages. Lines of a file are quoted, values of variables are not."""

    name: str
    text: str
    is_variable: bool = False

    @cached_property
    def lines(self) -> list[str]:
        return _BREAK.split(self.text)

    @cached_property
    def withheld(self) -> dict[int, int]:
        """Line -> column from which it may hold a secret, both from 0."""
        return _SecretScan(self.text).run()

    def excerpt(self, line: int, column: int, *, guarded: bool) -> str:
        """The line, and a caret below `column` (both from 0), without secrets; empty if nothing may be shown.

        `guarded`: the line belongs to a section of secrets; nothing but its key is shown.
        """
        if self.is_variable or line >= len(self.lines):
            return ""
        shown = self.lines[line].rstrip()
        end = self._end(line, shown, guarded=guarded)
        if not shown[:end].strip():
            return ""
        column = min(column, end)
        shown = shown if end >= len(shown) else shown[:end].rstrip() + " ***"
        begin = max(0, column - MAX_COLUMNS // 2)
        window = shown[begin : begin + MAX_COLUMNS]
        printable = "".join(char if char.isprintable() else " " for char in window)
        return f"\n    {printable}\n    {' ' * (column - begin)}^"

    def _end(self, line: int, shown: str, *, guarded: bool) -> int:
        """The column from which `shown` is withheld."""
        end = self.withheld.get(line, len(shown))
        if word := _SECRET_WORD.search(shown):
            end = min(end, word.end())
        if key := next((key for key in _KEY.finditer(shown) if _may_name_a_secret(key[1])), None):
            end = min(end, key.end())
        if user_info := _USER_INFO.search(shown):
            end = min(end, user_info.start() + 2)
        if guarded:
            colon = shown.find(":")
            end = min(end, colon + 1 if _PLAIN_KEY.fullmatch(shown[: max(0, colon)]) else 0)
        return end


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value or key was written: `line` and `column` from 0."""

    source: Source
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.source.is_variable:
            return self.source.name
        return f"{self.source.name}:{self.line + 1}:{self.column + 1}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `place` is None where neither the file nor a variable is at fault."""

    loc: Loc
    message: str
    place: Place | None

    def __str__(self) -> str:
        guarded = _is_guarded(self.loc)
        name = _dotted(self.loc)
        if guarded and not _PLAIN_KEY.fullmatch(str(self.loc[-1])):
            name = f"{_dotted(self.loc[:-1])}.…"
        if self.place is None:
            return f"{name}: {self.message}"
        if self.place.source.is_variable:
            names_itself = _variable(self.loc) == self.place.source.name.upper()
            return f"{self.place}: {'' if names_itself else f'{name}: '}{self.message}"
        excerpt = self.place.source.excerpt(self.place.line, self.place.column, guarded=guarded)
        return f"{self.place} {f'{name}: ' if name else ''}{self.message}{excerpt}"

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """The file's problems first, from its top to its bottom, then the variables'."""
        if self.place is None:
            return (2, 0, 0, "")
        return (self.place.source.is_variable, self.place.line, self.place.column, self.place.source.name)


@dataclass(slots=True)
class _Tree:
    """Plain data, the place of each value and key in it, and what is wrong so far."""

    data: dict[str, Any] = field(default_factory=dict)
    values: dict[Loc, Place] = field(default_factory=dict)
    keys: dict[Loc, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: dict[Loc, Problem] = field(default_factory=dict)  # problems of values; gone once overridden

    def place(self, loc: Loc) -> Place | None:
        """Where the value at `loc` was written, or the nearest value around it."""
        return next((self.values[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in self.values), None)

    def problem(self, loc: Loc, message: str, place: Place | None = None) -> None:
        self.problems.append(Problem(loc, message, place or self.place(loc)))

    def break_value(self, loc: Loc, message: str, place: Place | None = None) -> _Unusable:
        """Note what is wrong with the value at `loc`; returns what to put in its stead."""
        self.broken[loc] = Problem(loc, message, place or self.place(loc))
        return _UNUSABLE

    def is_broken(self, loc: Loc) -> bool:
        return any(loc[:end] in self.broken for end in range(len(loc) + 1))

    def forget(self, loc: Loc) -> None:
        """The value at `loc` is about to be replaced: so are its places and its problems."""
        for known in (self.values, self.keys, self.broken):
            for below in [key for key in known if key[: len(loc)] == loc]:
                del known[below]

    def all_problems(self) -> list[Problem]:
        return [*self.problems, *self.broken.values()]


def _report(problems: Iterable[Problem]) -> str:
    ranked = sorted(problems, key=lambda problem: problem.rank)
    texts = [str(problem) for problem in ranked[:MAX_PROBLEMS]]
    if len(ranked) > MAX_PROBLEMS:
        texts.append(f"and {len(ranked) - MAX_PROBLEMS} more problems")
    return "\n".join(texts)


def _dotted(loc: Loc) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{_shown(part)}"
    return text.removeprefix(".")


def _is_guarded(loc: Loc) -> bool:
    """Whether a secret may stand there, under whatever name."""
    in_admin = loc[:1] == ("admin",) and loc[1:] not in ((), ("host",), ("port",))
    return in_admin or loc[:2] == ("origin", "credentials")


def _shown(name: str) -> str:
    """A key as it may stand in a message: what is no plain name may be a value that lost its colon."""
    plain = _PLAIN_NAME.match(name)
    head = plain[0] if plain else ""
    return name if head == name else f"{head}…"


def _variable(loc: Loc) -> str:
    return PREFIX + "__".join(str(part) for part in loc).upper()


# ---- What may not be quoted --------------------------------------------------------------------------


def _may_name_a_secret(name: str) -> bool:
    """Wide on purpose: `tokn` and `secret_acces_key` hold secrets too."""
    if _SECRET_WORD.search(name) or name.lower() in ("key", "id", "pass", "pwd", "auth"):
        return True
    return bool(difflib.get_close_matches(name[:64].lower(), _SECRET_NAMES, 1, 0.75))


class _SecretScan:
    """Finds what may be a secret in a text that need not even parse, by its tokens.

    Whatever follows the name of a secret is withheld up to the next key; so is the rest of the text if no key
    can be read from there on.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = _BREAK.split(text)
        self._withheld: dict[int, int] = {}
        self._begin: yaml.Mark | None = None  # of the secret being passed
        self._after_key = False
        self._name: str | None = None

    def run(self) -> dict[int, int]:
        """Line -> column from which it is withheld, both from 0."""
        depth = 0
        try:
            for number, token in enumerate(yaml.scan(self._text, Loader=yaml.SafeLoader)):
                self._feed(token)
                depth += isinstance(token, (yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken))
                depth -= isinstance(token, (yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken))
                # The scanner's time grows with the square of the nesting.
                if depth > MAX_DEPTH or number > 6 * MAX_VALUES:
                    self._begin = self._begin or token.start_mark
                    break
        except yaml.reader.ReaderError:
            return dict.fromkeys(range(len(self._lines)), 0)
        except (yaml.YAMLError, ValueError, OverflowError):
            pass
        if self._begin is not None:
            self._withhold(self._begin, len(self._lines))
        return self._withheld

    def _feed(self, token: yaml.Token) -> None:
        # The end of a block is no end: an indentation gone wrong puts the secret behind it.
        if self._begin is not None and isinstance(token, (yaml.KeyToken, yaml.StreamEndToken)):
            end = token.start_mark
            shares_line = end.line == self._begin.line or self._lines[end.line][: end.column].strip()
            self._withhold(self._begin, end.line + bool(shares_line))
            self._begin = None
        if isinstance(token, yaml.KeyToken):
            self._after_key, self._name = True, None
        elif isinstance(token, yaml.ScalarToken) and self._after_key:
            self._after_key, self._name = False, token.value
        elif isinstance(token, yaml.ValueToken):
            if self._name is not None and _may_name_a_secret(self._name):
                self._begin = token.end_mark
            self._name = None

    def _withhold(self, begin: yaml.Mark, end_line: int) -> None:
        """From `begin` to the end of its line, and the lines after it up to `end_line`, exclusive."""
        self._withheld[begin.line] = min(self._withheld.get(begin.line, begin.column), begin.column)
        self._withheld.update(dict.fromkeys(range(begin.line + 1, end_line), 0))


# ---- YAML --------------------------------------------------------------------------------------------


class _YamlError(Exception):
    """The text is no YAML, or not the part of YAML that is understood here."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.message = message
        self.place = place


class _Composer:
    """One YAML document -> plain data in `tree`, below `at`.

    `environ` fills in `${VAR}`; None leaves it as it is.
    """

    def __init__(self, source: Source, tree: _Tree, environ: Mapping[str, str] | None, at: Loc = ()) -> None:
        self._source = source
        self._tree = tree
        self._environ = environ
        self._at = at
        self._values = 0
        self._loader: Any = None  # PyYAML's parser has no types

    def compose(self) -> object:
        """The data; None for an empty document. Raises _YamlError."""
        try:
            self._loader = yaml.SafeLoader(self._source.text)
            self._loader.get_event()  # the start of the stream
            if self._loader.check_event(yaml.StreamEndEvent):
                return None
            self._loader.get_event()  # the start of the document
            data = self._node(self._at)
            self._loader.get_event()  # the end of the document
            if not self._loader.check_event(yaml.StreamEndEvent):
                self._fail("one document is enough: remove what follows", self._loader.peek_event().start_mark)
            return data
        except yaml.reader.ReaderError as error:
            before = _BREAK.split(self._source.text[: error.position])
            place = Place(self._source, len(before) - 1, len(before[-1]))
            raise _YamlError(f"not valid YAML: character #x{int(error.character):04x}", place) from None
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error) from None
        except (ValueError, OverflowError):  # PyYAML lets an escape like "\UFFFFFFFF" through to chr()
            raise _YamlError("not valid YAML", self._place(self._loader.get_mark())) from None

    def _syntax(self, error: yaml.MarkedYAMLError) -> _YamlError:
        problem, mark = error.problem or "", error.problem_mark
        if error.context_mark is not None and (mark is None or "end of stream" in problem):
            mark = error.context_mark  # where the quote was opened says more than where the file ends
            problem = f"{problem} {error.context}"
        if mark is None:
            return _YamlError("not valid YAML", Place(self._source))
        place = self._place(mark)
        if "tag" in problem:
            return _YamlError("YAML tags are not understood", place)
        if place.line in self._source.withheld:
            return _YamlError("not valid YAML", place)
        hint = ""
        if self._source.text[: mark.index + 1].endswith("${"):
            hint = '; inside { } and [ ] write "${VAR}", in quotes'
        return _YamlError(f"not valid YAML: {problem}{hint}", place)

    def _fail(self, message: str, mark: yaml.Mark) -> Never:
        raise _YamlError(message, self._place(mark))

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
        if self._environ is not None and "${" in text:
            missing, text = _substitute(text, self._environ)
            if missing is not None:
                return self._tree.break_value(loc, missing, self._reference(event))
            is_plain = False  # the fields read numbers and flags from text, and text stays text
        if not _is_sound(text):
            return self._tree.break_value(loc, "must not hold a NUL or a lone surrogate")
        return _plain_value(text) if is_plain else text

    def _reference(self, event: Any) -> Place:
        """Where the first `${` of a scalar stands."""
        start, end = event.start_mark, event.end_mark
        offset = self._source.text.find("${", start.index, end.index)
        lines = _BREAK.split(self._source.text[start.index : max(offset, start.index)])
        column = len(lines[-1]) + (start.column if len(lines) == 1 else 0)
        return Place(self._source, start.line + len(lines) - 1, column)


def _is_sound(text: str) -> bool:
    return _UNSOUND.search(text) is None


def _plain_value(text: str) -> object:
    """What an unquoted scalar means: numbers are decimal, flags are true and false, all else is text."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _substitute(text: str, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """What is wrong with the `${VAR}` in `text`, or None, and `text` with them replaced; `$${` is `${`."""
    unset: list[str] = []
    malformed = False

    def replacement(match: re.Match[str]) -> str:
        nonlocal malformed
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            malformed = True
        elif match[1] not in environ:
            unset.append(match[1])
        return environ.get(match[1] or "", "")

    replaced = _REFERENCE.sub(replacement, text)
    if unset:
        return (
            f"not set in the environment: {', '.join(dict.fromkeys(unset))}; write $${{ for a plain ${{",
            "",
        )
    if malformed:
        return "'${' needs a variable's name and a '}' behind it; write $${ for a plain ${", ""
    return None, replaced


# ---- What the models say about a location ------------------------------------------------------------


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for branch in get_args(annotation):
            yield from _alternatives(branch)
    else:
        yield annotation


def _types(loc: Loc) -> list[Any]:
    """What the setting at `loc` may be; empty if there is no such setting."""
    found: list[Any] = [Settings]
    for part in loc:
        below: list[Any] = []
        for kind in found:
            if isinstance(part, int):
                below += get_args(kind)[:1] if get_origin(kind) is tuple else []
            elif _is_model(kind) and part in kind.model_fields:
                below.append(kind.model_fields[part].annotation)
        found = [kind for annotation in below for kind in _alternatives(annotation)]
    return found


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _names(loc: Loc) -> list[str]:
    """The keys there are below `loc`."""
    return list(dict.fromkeys(name for kind in _types(loc) if _is_model(kind) for name in kind.model_fields))


def _nearest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(names), 1)), None)


# ---- The environment ---------------------------------------------------------------------------------


def _override(tree: _Tree, environ: Mapping[str, str]) -> None:
    """Put `BUCKETFRONT_A__B=…` over the file's `a: {b: …}`. Shallow ones first, list items in order."""
    seen: dict[Loc, str] = {}
    named = [(loc, name) for name in environ if (loc := _location(name)) is not None]
    for loc, name in sorted(named, key=lambda pair: (len(pair[0]), [(isinstance(p, str), p) for p in pair[0]])):
        place = Place(Source(name, environ[name], is_variable=True))
        if not _types(loc):
            tree.problem(loc, _unknown_variable(loc), place)
        elif seen.setdefault(loc, name) != name:
            tree.problem(loc, f"set twice, as {seen[loc]} too", place)
        elif (obstacle := _make_room(tree, loc)) is not None:
            tree.problem(loc, obstacle, place)
        else:
            tree.values[loc] = place
            _put(_container(tree.data, loc), loc[-1], _from_variable(tree, loc, place))


def _location(name: str) -> Loc | None:
    """The setting a variable is meant for, or None.

    Others use the prefix as well: Kubernetes makes `BUCKETFRONT_SERVICE_HOST` for a service of that name.
    """
    if not name.upper().startswith(PREFIX):
        return None
    parts = name[len(PREFIX) :].lower().split("__")
    if len(parts) == 1 and parts[0] not in Settings.model_fields:
        return None
    return tuple(int(part) if re.fullmatch("[0-9]{1,4}", part) else part for part in parts)


def _unknown_variable(loc: Loc) -> str:
    known = next(end for end in range(len(loc) - 1, -1, -1) if _types(loc[:end]))
    names = _names(loc[:known])
    if not names:
        item = "takes items by number" if known and _is_list(loc[:known]) else "has no keys below it"
        return f"unknown setting: {_variable(loc[:known])} {item}"
    near = _nearest(str(loc[known]), names)
    if near is not None:
        return f"unknown setting. Did you mean {_variable((*loc[:known], near, *loc[known + 1 :]))}?"
    return f"unknown setting. Allowed: {', '.join(_variable((*loc[:known], name)) for name in names)}"


def _is_list(loc: Loc) -> bool:
    return any(get_origin(kind) is tuple for kind in _types(loc))


def _make_room(tree: _Tree, loc: Loc) -> str | None:
    """Make the containers down to `loc` and forget what stands there; returns what is in the way, or None."""
    container: Any = tree.data
    for end, part in enumerate(loc, start=1):
        if isinstance(part, int) and part > len(container):
            return f"the list has {len(container)} items: number {len(container)} is the next one"
        if end == len(loc):
            break
        child = _get(container, part)
        wanted = list if isinstance(loc[end], int) else dict
        if not isinstance(child, wanted):
            place = tree.values.get(loc[:end])
            if place is not None and place.source.is_variable:
                return f"contradicts {place}"
            tree.forget(loc[:end])
            child = wanted()
            _put(container, part, child)
        container = child
    tree.forget(loc)
    return None


def _container(data: Any, loc: Loc) -> Any:
    for part in loc[:-1]:
        data = data[part]
    return data


def _get(container: Any, part: str | int) -> object:
    if isinstance(part, int):
        return container[part] if part < len(container) else None
    return container.get(part)


def _put(container: Any, part: str | int, value: object) -> None:
    if isinstance(part, int) and part == len(container):
        container.append(value)
    else:
        container[part] = value


def _from_variable(tree: _Tree, loc: Loc, place: Place) -> object:
    """Sections and lists are YAML; all else is text as it stands, for a token may hold '#', '{' or ': '."""
    text = place.source.text
    kinds = _types(loc)
    if not _is_sound(text):
        return tree.break_value(loc, "must be UTF-8", place)
    if text.lstrip()[:1] in ("[", "{") and any(_is_model(kind) or get_origin(kind) is tuple for kind in kinds):
        try:
            return _Composer(place.source, tree, None, loc).compose()
        except _YamlError as error:
            column = f" (line {error.place.line + 1}, column {error.place.column + 1})"
            return tree.break_value(loc, error.message + column, place)
    return None if text == "null" and NoneType in kinds and SecretStr not in kinds else text


# ---- Secrets -----------------------------------------------------------------------------------------


def _read_secrets(tree: _Tree, container: Any, loc: Loc) -> None:
    """Put the contents of the file in the place of every secret that reads `file:/path`."""
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for part, value in list(items):
        below = (*loc, part)
        if isinstance(value, (dict, list)):
            _read_secrets(tree, value, below)
        elif isinstance(value, str) and value.startswith(_FILE) and SecretStr in _types(below):
            try:
                container[part] = _secret_of(Path(value.removeprefix(_FILE)))
            except ValueError as error:
                container[part] = tree.break_value(below, str(error))


def _secret_of(path: Path) -> str:
    """The text of a secret file, without the line break at its end. Raises ValueError."""
    if not path.is_absolute():
        raise ValueError("a secret file needs its absolute path: file:/path")
    shown = ascii(str(path))
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the secret file {shown} cannot be read: {_reason(error)}") from None
    if len(octets) > MAX_SECRET_BYTES:
        raise ValueError(f"the secret file {shown} has more than {MAX_SECRET_BYTES} bytes")
    try:
        secret = octets.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"the secret file {shown} is not UTF-8") from None
    if not secret:
        raise ValueError(f"the secret file {shown} is empty")
    return secret


# ---- Validation --------------------------------------------------------------------------------------

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


def _validate(tree: _Tree) -> Settings | None:
    """The settings; None if there is any problem, and then `tree` knows it."""
    errors: list[ErrorDetails] = []
    settings = None
    try:
        settings = Settings.model_validate(tree.data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    for details in errors:
        _note(tree, details)
    return settings if not tree.all_problems() else None


def _note(tree: _Tree, details: ErrorDetails) -> None:
    loc: Loc = tuple(part for part in details["loc"] if part not in UNION_TAGS)
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, SettingError):
        written = next((at for at in cause.at if at in tree.values), cause.at[0])
        tree.problem(cause.at[0], str(cause), tree.place(written))
    elif details["type"] == "too_short" and details["input"]:
        pass  # pydantic counts the items that are right; the others are reported themselves
    elif not tree.is_broken(loc):
        key = tree.keys.get(loc) if details["type"] == "extra_forbidden" else None
        tree.problem(loc, _message(details, loc), key)


def _message(details: ErrorDetails, loc: Loc) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(str(loc[-1]), _names(loc[:-1]))
    if kind == "literal_error":
        allowed = _NAMES_IN_MESSAGE.findall(context["expected"])
        given = details["input"]
        near = _nearest(given, allowed) or _nearest(given.upper(), allowed) if isinstance(given, str) else None
        hint = f". Did you mean {near}?" if near else ""
        return f"must be one of {', '.join(allowed)}{hint}"
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
    near = _nearest(name, names)
    return f"unknown key. Did you mean {near}?" if near else f"unknown key. Allowed: {', '.join(names)}"
