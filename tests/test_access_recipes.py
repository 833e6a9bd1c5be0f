"""The recipes of docs/access.md sign as the proxy verifies."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rows import each_row

from bucketfront.server.access.signed_url import Permission, signed_url

PAGE = (Path(__file__).parent.parent / "docs" / "access.md").read_text()
ARGUMENTS = ("GET", "/films/a%20b.mp4", "1800000060", "k1", "an old secret of the app")
EXPECTED = signed_url(Permission("GET", ARGUMENTS[1], 1800000060), "k1", ARGUMENTS[4])


def recipe(language: str) -> str:
    """Return the example in a language that defines `sign`."""
    codes: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return next(code for code in codes if "sign" in code)


@each_row(
    ("program", "option", "language", "call"),
    [
        (sys.executable, "-c", "python", "import sys\nprint(sign(*sys.argv[1:]))"),
        ("node", "-e", "js", "console.log(sign(...process.argv.slice(1)));"),
        ("sh", "-c", "sh", 'sign "$@"'),
    ],
)
def test_recipe(program: str, option: str, language: str, call: str) -> None:
    """The recipe gives the URL that `bucketfront sign` gives, which is the one of the page's example."""
    needed = [program, *(("openssl", "basenc") if language == "sh" else ())]
    if missing := [name for name in needed if shutil.which(name) is None]:
        pytest.skip(f"not run: {', '.join(missing)} is not installed")
    name = ["sh"] if language == "sh" else []
    command = [program, option, f"{recipe(language)}\n{call}", *name, *ARGUMENTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == EXPECTED
    assert f"`{EXPECTED.partition('bf_sig=')[2]}`" in PAGE
