"""The process log: what the proxy reports of itself, on standard error.

`apply` may be called at any time, so a reload can change level and format while the proxy serves.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from bucketfront.config.log_settings import LogSettings

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Below this level, aiobotocore announces the credentials' source, werkzeug each request, and botocore what it signs
# (docs/invariants.md#secrets-stay-in).
_QUIET = ("botocore", "aiobotocore", "werkzeug")
_QUIET_LEVEL = logging.WARNING


class _JsonLines(logging.Formatter):
    """Formats a message as one JSON object, in which line breaks and control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        more = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        at = f"{seconds}.{int(record.msecs):03d}Z"
        line = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        return json.dumps(line | more | getattr(record, "facts", {}))


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler of the process log. `is_verbose` is true if the command line asks for `info`."""

    is_verbose = False


def apply(settings: LogSettings, *, is_verbose: bool | None = None, stream: TextIO | None = None) -> None:
    """Let the process log have this level and format from now on.

    `is_verbose` lets it have `info` messages in any case, and None keeps the choice of the call before. `stream` counts
    in the first call only, and is standard error if it is None.
    """
    root = logging.getLogger()
    handler = next((one for one in root.handlers if isinstance(one, _Handler)), None)
    if handler is None:
        handler = _Handler(stream or sys.stderr)
        root.addHandler(handler)
    if is_verbose is not None:
        handler.is_verbose = is_verbose
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if settings.format == "json" else text)
    level = _LEVELS[settings.level]
    root.setLevel(min(level, logging.INFO) if handler.is_verbose else level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, _QUIET_LEVEL))


def line(message: str, facts: Mapping[str, object]) -> str:
    """Return a JSON line of the process log for what is printed in any case, with further `facts`."""
    record = logging.LogRecord("bucketfront", logging.INFO, "", 0, message, None, None)
    record.facts = dict(facts)
    return _JsonLines().format(record)
