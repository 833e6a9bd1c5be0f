"""The settings of the process log."""

from typing import Literal

from bucketfront.config.section import Section


class LogSettings(Section):
    """The process log on standard error: warnings and errors of the proxy itself. Requests are in the access log."""

    level: Literal["debug", "info", "warning", "error"] = "warning"
    """The least important messages that are written. `info` has each failed request, and what the cache does.
    `serve -v` is short for `info`."""
    format: Literal["text", "json"] = "text"
    """Format of a line: text, or a JSON object with `time`, `level`, `logger`, `message`, and `exception` if there is
    one. What is wrong with the configuration itself is written as text."""
