"""The guides of docs/guides, followed word by word: each command runs, and prints what the guide shows."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from bucketfront_process import ROOT
from case import Case
from programs import Program, installed, version_of

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
TIMEOUT_S = 300.0
# A command that serves goes on, and the next one waits for it.
_SERVES = re.compile(r"bucketfront (demo|serve)\b")
_INSTALLS = re.compile(r"pip install ")
_BLOCK = re.compile(r"(<!-- not run: [^\n]*-->\n)?^( *)```(sh|text)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# A program and no function: the shell would run a function in a process of its own, and a signal would end that alone.
_PROGRAM = """\
#!/bin/sh
exec {python} -m bucketfront.cli "$@"
"""
_BEGIN = """\
set -euo pipefail
serving() {
  while kill -0 $!; do bucketfront healthcheck >healthy 2>&1 && return; sleep 0.1; done
  cat server >&2; exit 1
}
trap 'jobs -p | xargs -r kill; wait' EXIT
ip link set lo up
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A block of commands, and what it prints: `…` stands for any text, also of several lines. None is not shown."""

    commands: str
    shown: str | None


def steps(text: str) -> list[Step]:
    found: list[Step] = []
    for skipped, indent, kind, body in _BLOCK.findall(text):
        plain = textwrap.dedent(body) if indent else body
        if kind == "sh" and not skipped:
            found.append(Step(plain, None))
        elif kind == "text":
            assert found, "output is shown of no command"
            assert found[-1].shown is None, "two outputs of one block"
            found[-1] = Step(found[-1].commands, plain)
    return found


def script(guide: list[Step]) -> str:
    """Return a program for the shell that writes what each block prints to a file of its number."""
    lines = [_BEGIN]
    for number, step in enumerate(guide):
        lines.append(f"exec >{number}")
        for line in step.commands.splitlines():
            if _SERVES.match(line):
                lines += [f"{line} >>server 2>&1 &", "serving"]
            elif not _INSTALLS.match(line):
                lines.append(line)
    return "\n".join((*lines, ""))


def matches(printed: str, shown: str) -> bool:
    """Return whether the text is what a guide shows."""
    pattern = re.escape(shown.strip("\n")).replace(re.escape("…"), r"[\s\S]*?")
    return re.fullmatch(pattern, printed.replace("\r", "").strip("\n")) is not None


def left_over(home: Path) -> list[str]:
    """Return the commands of the processes that have this home, and so were started by the guide."""
    mark, found = f"HOME={home}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guide(guide: Path, case: Case, tmp_path: Path) -> None:
    """Each command of the guide works in an empty folder and prints what the guide shows. No process is left."""
    bash, unshare = installed("bash"), installed("unshare", "util-linux", version=("--version",))
    installed("ip", "iproute2", version=("-V",))
    case.of(Program(f"Guide: {guide.stem}", bash.path, version_of(bash.path, "--version")), "each command of the guide")
    if os.geteuid() != 0:
        pytest.skip("not run: a network of its own, for ports 8080 and 8081, needs root")
    found = steps(guide.read_text())
    assert any(step.shown is not None for step in found)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BUCKETFRONT_", "AWS_"))}
    program = tmp_path / "bin" / "bucketfront"
    program.parent.mkdir()
    program.write_text(_PROGRAM.format(python=shlex.quote(sys.executable)))
    program.chmod(0o755)
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        (unshare.path, "--net", bash.path, "-c", script(found)),
        cwd=tmp_path,
        env={**environment, **places, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert left_over(tmp_path) == []
    printed = [path.read_text() if (path := tmp_path / str(number)).exists() else "" for number in range(len(found))]
    assert result.returncode == 0, (result.stderr[-2000:], printed)
    for step, text in zip(found, printed, strict=True):
        if step.shown is not None:
            assert matches(text, step.shown), f"{step.commands}\nprinted\n{text}"
