"""What of a configuration text may be quoted in a message: no secret (I28), not even from a text that is broken.

Rule 1: by position. Whatever follows the name of a secret is withheld, on all lines it takes: `secret_spans`.
Rule 2: by look. A line on which a secret is named, in whatever position, is shown up to it: `quotable_end`.
"""

import difflib
import re

import yaml

LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # YAML 1.1 section 4.2, what PyYAML counts as line breaks

_MAX_DEPTH = 16  # the scanner's time grows with the square of the nesting
_MAX_TOKENS = 60_000
_SECRET_NAMES = ("token", "access_key_id", "secret_access_key", "session_token", "credentials", "password")
_SECRET_WORD = re.compile(r"(?:secret|token|passw|credential|acc?ess?_?key|key_?id)[\w-]*[\"']?\s*:?", re.IGNORECASE)
_KEY = re.compile(r"(?<![\w-])([\w-]++)[\"']?\s*+:")  # possessive: linear on a line of any length
_PLAIN_KEY = re.compile(r"[\s-]*[a-z_]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_USER_INFO = re.compile(r"//[^/\s]*@")


def secret_spans(text: str) -> dict[int, int]:
    """Line -> column from which it may hold a secret, both from 0. The text need not even parse."""
    return _SecretScan(text).run()


def quotable_end(line: str, *, guarded: bool) -> int:
    """The column from which `line` is withheld for its look.

    `guarded`: the line belongs to a section of secrets; nothing but its key is shown.
    """
    end = len(line)
    if word := _SECRET_WORD.search(line):
        end = min(end, word.end())
    if key := next((key for key in _KEY.finditer(line) if _may_name_a_secret(key[1])), None):
        end = min(end, key.end())
    if user_info := _USER_INFO.search(line):
        end = min(end, user_info.start() + 2)
    if guarded:
        colon = line.find(":")
        end = min(end, colon + 1 if is_plain_key(line[: max(0, colon)]) else 0)
    return end


def is_plain_key(text: str) -> bool:
    """Whether `text` looks like a key of ours, rather than like a secret in the place of one."""
    return _PLAIN_KEY.fullmatch(text) is not None


def shown_name(name: str) -> str:
    """A key as it may stand in a message: what is no plain name may be a value that lost its colon."""
    plain = _PLAIN_NAME.match(name)
    head = plain[0] if plain else ""
    return name if head == name else f"{head}…"


def _may_name_a_secret(name: str) -> bool:
    """Wide on purpose: `tokn` and `secret_acces_key` hold secrets too."""
    if _SECRET_WORD.search(name) or name.lower() in ("key", "id", "pass", "pwd", "auth"):
        return True
    return bool(difflib.get_close_matches(name[:64].lower(), _SECRET_NAMES, 1, 0.75))


class _SecretScan:
    """Finds what may be a secret by the tokens of a text.

    Whatever follows the name of a secret is withheld up to the next key; so is the rest of the text if no key
    can be read from there on.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = LINE_BREAK.split(text)
        self._withheld: dict[int, int] = {}
        self._begin: yaml.Mark | None = None  # of the secret being passed
        self._after_key = False
        self._name: str | None = None

    def run(self) -> dict[int, int]:
        depth = 0
        try:
            for number, token in enumerate(yaml.scan(self._text, Loader=yaml.SafeLoader)):
                self._feed(token)
                depth += isinstance(token, (yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken))
                depth -= isinstance(token, (yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken))
                if depth > _MAX_DEPTH or number > _MAX_TOKENS:
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
