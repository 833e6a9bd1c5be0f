"""The process log has the level and the format of the settings, and both may change while it is written (I28)."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from stopwatch import HANG_S

from bucketfront import process_log
from bucketfront.config.log_settings import LogSettings

Level = Literal["debug", "info", "warning", "error"]
ROOT = Path(__file__).parent.parent
NAMES = ("", "botocore", "aiobotocore", "werkzeug")
log = logging.getLogger("bucketfront.test")


@pytest.fixture
def written() -> Iterator[Callable[[], list[str]]]:
    """A process log into memory. It returns the lines since the last call."""
    before = {name: logging.getLogger(name).level for name in NAMES}
    remove_handlers()  # a command that ran in this process may have left its own
    stream = io.StringIO()
    process_log.apply(LogSettings(), is_verbose=False, stream=stream)

    def taken() -> list[str]:
        lines = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return lines

    yield taken
    remove_handlers()
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def remove_handlers() -> None:
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, process_log._Handler)]:
        root.removeHandler(handler)


def say(logger: logging.Logger = log) -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "at %d", level)


@pytest.mark.parametrize(("level", "first"), [("debug", 10), ("info", 20), ("warning", 30), ("error", 40)])
@pytest.mark.parametrize("is_verbose", [False, True])
def test_levels(written: Callable[[], list[str]], level: Level, first: int, is_verbose: bool) -> None:
    """Only messages of the level and above are written, each once. `-v` adds those of `info`."""
    process_log.apply(LogSettings(level=level), is_verbose=is_verbose)
    say()
    first = min(first, 20) if is_verbose else first
    assert [line.rpartition(" ")[2] for line in written()] == [str(n) for n in (10, 20, 30, 40) if n >= first]


def test_a_change_while_it_is_written(written: Callable[[], list[str]]) -> None:
    """A later call changes level and format, and leaves the choice of the command line as it was."""
    process_log.apply(LogSettings(), is_verbose=True)
    process_log.apply(LogSettings(level="error", format="json"))
    log.info("a")
    (line,) = written()
    assert json.loads(line)["message"] == "a"
    process_log.apply(LogSettings(level="error"), is_verbose=False)
    log.warning("b")
    assert written() == []


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_sdk_stays_quiet(written: Callable[[], list[str]], level: Level) -> None:
    """The SDK's debug messages have signatures, so no level writes them (I28)."""
    process_log.apply(LogSettings(level=level))
    say(logging.getLogger("botocore.auth"))
    assert [line.rpartition(" ")[2] for line in written()] == (["40"] if level == "error" else ["30", "40"])


def test_json_lines(written: Callable[[], list[str]]) -> None:
    """A message is one JSON object on one line, whatever it contains. Its time is UTC (I28)."""
    process_log.apply(LogSettings(format="json"))
    log.warning("a\nb\x1b[31m%s", "\r")
    log.error("e", exc_info=ValueError("c\nd"))
    first, second = (json.loads(line) for line in written())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "warning", "logger": "bucketfront.test", "message": "a\nb\x1b[31m\r"}
    assert second["level"] == "error"
    assert second["exception"].endswith("ValueError: c\nd")


def test_text_lines(written: Callable[[], list[str]]) -> None:
    """A line of text has time, level, logger and message."""
    log.warning("a")
    (line,) = written()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING bucketfront\.test: a", line)


@pytest.mark.long
def test_a_server_with_json_lines(tmp_path: Path) -> None:
    """All that `serve` writes to standard error is JSON, from its addresses to its warnings. SIGHUP changes that."""
    config = tmp_path / "proxy.yaml"
    text = (
        "server: {port: 0, workers: 1}\nadmin: {port: 0}\n"
        "origin: {endpoint_url: embedded}\nmounts: [{path: /, bucket: demo}]\n"
        f"cache: {{dir: {tmp_path}/cache, max_size: 64MiB, min_free: 0}}\naccess_log: {{path: {tmp_path}/log}}\n"
    )
    config.write_text(f"{text}log: {{format: json, level: info}}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUCKETFRONT_")}
    command = [sys.executable, "-m", "bucketfront.cli", "serve", "-c", str(config)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        overdue = threading.Timer(HANG_S, process.kill)
        overdue.start()
        assert process.stderr is not None
        lines: list[dict[str, Any]] = []
        try:
            while not lines or lines[-1]["message"] != "serving":
                lines.append(json.loads(process.stderr.readline()))
            assert lines[-1]["clients"][0].startswith("http://127.0.0.1:")
            config.write_text(f"{text}log: {{format: text, level: warning}}\n")
            process.send_signal(signal.SIGHUP)
            while not (line := process.stderr.readline()).startswith("2"):
                lines.append(json.loads(line))
            assert " WARNING bucketfront" in line
        finally:
            process.terminate()
            process.wait(HANG_S)
            overdue.cancel()
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
