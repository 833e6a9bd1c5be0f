"""The programs of others: where they are, their versions, and one run of them.

Debian's packages in `debian-packages.txt` are installed by `.ci/run`. A program that is missing makes its tests "not
run".
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TIMEOUT_S = 120.0  # seconds for one run of a program

_VERSION = re.compile(r"\d+(?:\.\d+)+\S*|\b\d{2,}\b")


@dataclass(frozen=True, slots=True)
class Program:
    """An installed program. `name` is what a reader of docs/compatibility.md knows."""

    name: str
    path: str
    version: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended. `output` is what it printed, on standard output and standard error."""

    status: int
    output: str
    stdout: bytes = field(repr=False)


def installed(name: str, package: str = "", *, version: Sequence[str] = ("--version",)) -> Program:
    """Return a program of Debian, or skip the test. `package` is Debian's, if its name is another.

    `version` are the arguments that make it print its version.
    """
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"not run: {name} is not installed (Debian's package {package or name})")
    return Program(name, path, version_of(path, *version))


def version_of(*command: str) -> str:
    """Return the first version number that a program prints, empty if there is none."""
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )
    found = _VERSION.search(result.stdout + result.stderr)
    return found[0].strip("(),;") if found else ""


def run(
    *command: str | os.PathLike[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float = TIMEOUT_S,
    fails: bool = False,
) -> Finished:
    """Run a program in `folder` to its end, and fail the test if its status is not 0 (with `fails`, if it is).

    Its home is `folder` as well, so that it finds no settings. What it started ends with it.
    """
    base = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    with (folder / "output").open("w+b") as output:
        with subprocess.Popen(
            command,
            cwd=folder,
            env={**base, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        ) as process:
            try:
                stdout, _ = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                output.seek(0)
                pytest.fail(f"{command[0]} did not end within {timeout:g} s: {_end(output.read())}")
            finally:
                _end_all(process)
        output.seek(0)
        printed = stdout.decode(errors="replace") + output.read().decode(errors="replace")
    assert (process.returncode != 0) == fails, f"{command[0]} ended with {process.returncode}: {printed[-3000:]}"
    return Finished(process.returncode, printed, stdout)


def _end(data: bytes) -> str:
    return data[-3000:].decode(errors="replace")


def _end_all(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of the process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()
