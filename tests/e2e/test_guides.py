"""The guides of docs/guides, followed word by word: each command runs, and prints what the guide shows."""

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
_PROXY = """\
bucketfront() {{ {python} -m bucketfront.cli "$@"; }}
serving() {{
  while kill -0 $!; do bucketfront healthcheck >healthy 2>&1 && return; sleep 0.1; done
  cat server >&2; exit 1
}}
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
    lines = ["set -euo pipefail", _PROXY.format(python=shlex.quote(sys.executable))]
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


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guide(guide: Path, case: Case, tmp_path: Path) -> None:
    """Each command of the guide works in an empty folder, and prints what the guide shows."""
    bash, unshare = installed("bash"), installed("unshare", "util-linux", version=("--version",))
    installed("ip", "iproute2", version=("-V",))
    case.of(Program(f"Guide: {guide.stem}", bash.path, version_of(bash.path, "--version")), "each command of the guide")
    if os.geteuid() != 0:
        pytest.skip("not run: a network of its own, for ports 8080 and 8081, needs root")
    found = steps(guide.read_text())
    assert any(step.shown is not None for step in found)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BUCKETFRONT_", "AWS_"))}
    result = subprocess.run(
        (unshare.path, "--net", bash.path, "-c", script(found)),
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    printed = [path.read_text() if (path := tmp_path / str(number)).exists() else "" for number in range(len(found))]
    assert result.returncode == 0, (result.stderr[-2000:], printed)
    for step, text in zip(found, printed, strict=True):
        if step.shown is not None:
            assert matches(text, step.shown), f"{step.commands}\nprinted\n{text}"
