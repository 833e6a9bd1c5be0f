"""Commands of the command line, run in this process or in one of their own, without the developer's settings."""

import http.client
import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result
from stopwatch import HANG_S

from bucketfront.cli import main

MODULE = (sys.executable, "-m", "bucketfront.cli")


LOGGERS = ("bucketfront", "bucketfront.s3.upload", "botocore", "aiobotocore", "werkzeug")


def invoke(*arguments: str | Path, standard_input: bytes | str | None = None, **variables: str) -> Result:
    """Run a command in this process, with these variables of the environment and no others of bucketfront.

    A command sets levels of loggers for its process. They are as before when it has ended.
    """
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("BUCKETFRONT_")}
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    try:
        given = [str(argument) for argument in arguments]
        return CliRunner().invoke(main, given, input=standard_input, env={**environment, **variables})
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def environment_of_process(**variables: str) -> dict[str, str]:
    """Return the environment for a process, with these variables of bucketfront and no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BUCKETFRONT_")} | variables


@dataclass(frozen=True, slots=True)
class Running:
    announcement: str
    clients: str
    admin: str

    @property
    def environment(self) -> dict[str, str]:
        return {"BUCKETFRONT_ADMIN__PORT": self.admin.rpartition(":")[2]}

    def get(self, path: str, address: str = "") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address or self.clients, timeout=HANG_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def started(process: "subprocess.Popen[str]", last: str) -> Running:
    """Return the addresses that the process prints, once it has printed the line with `last`."""
    assert process.stderr is not None
    text = ""
    while last not in text:
        line = process.stderr.readline()
        assert line, text
        text += line
    clients, admin = (re.search(rf"{name} +http://(\S+)", text) for name in ("clients", "admin"))
    assert clients is not None
    assert admin is not None
    return Running(text, clients[1], admin[1])
