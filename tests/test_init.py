"""`bucketfront init`: the file that it writes, its prompts, and what it leaves alone."""

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import MODULE, environment_of_process, invoke
from stopwatch import HANG_S

from bucketfront.config.loader import load, load_with_places


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let each test run where a new user runs: in a folder without any file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_a_file_that_loads() -> None:
    """`init` writes the answers of its options, and the file loads without a warning and without further settings."""
    odd = "a 'folder': #1 ${HOME}"
    answers: tuple[str, ...] = (
        "--bucket",
        "12345",
        "--endpoint-url",
        "https://s3.example.com",
        "--region",
        "null",
        "--host",
        "*",
    )
    answers += ("--port", "9000", "--cache-dir", odd, "--max-size", "20GiB")
    result = invoke("init", *answers)
    assert result.exit_code == 0, result.output
    loaded = load_with_places(Path("proxy.yaml"), {"HOME": "/home/ann"})
    settings = loaded.settings
    assert loaded.warnings == []
    assert (settings.mounts[0].bucket, settings.mounts[0].path) == ("12345", "/")
    assert (settings.origin.endpoint_url, settings.origin.region) == ("https://s3.example.com", "null")
    assert (settings.server.is_local, settings.server.port) == (False, 9000)
    assert (str(settings.cache.dir), settings.cache.max_size) == (odd, 20 << 30)


def test_init_has_the_defaults() -> None:
    """With --bucket alone, what `init` writes are the defaults, and its first line names the schema beside it."""
    assert invoke("init", "--bucket", "media").exit_code == 0
    assert load(Path("proxy.yaml"), {}) == load(None, {"BUCKETFRONT_MOUNTS__0__BUCKET": "media"})
    first = Path("proxy.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=proxy.schema.json"
    assert json.loads(Path("proxy.schema.json").read_text()) == json.loads(invoke("config", "schema").stdout)
    assert sorted(path.name for path in Path().iterdir()) == ["proxy.schema.json", "proxy.yaml"]


def test_init_replaces_no_file() -> None:
    """`init` replaces a file or a foreign schema only with --force, and changes nothing if an answer is wrong."""
    for name in ("other.yaml", "other.schema.json"):
        Path(name).write_text("mine")
        refused = invoke("init", "--bucket", "media", "other.yaml")
        assert refused.exit_code == 1
        assert f"{name} exists" in refused.stderr
        assert Path(name).read_text() == "mine"
        assert invoke("init", "--bucket", "a/b", "--force", "other.yaml").exit_code == 2
        assert Path(name).read_text() == "mine"
        assert invoke("init", "--bucket", "media", "--force", "other.yaml").exit_code == 0
        assert Path(name).read_text() != "mine"
        Path("other.yaml").unlink()
    assert invoke("init", "--bucket", "media", "other.yaml").exit_code == 0  # its own schema is no obstacle


def test_init_where_it_cannot_write() -> None:
    """A folder that does not exist ends `init` with status 1 and the reason, also with --force."""
    for options in ((), ("--force",)):
        result = invoke("init", "--bucket", "media", *options, "none/proxy.yaml")
        assert result.exit_code == 1
        assert result.stderr == "cannot write none/proxy.yaml: No such file or directory\n"


def test_init_on_a_full_disk() -> None:
    """A disk that is full leaves no part of a file, and with --force the old file (I12)."""
    if not Path("/dev/full").exists():
        pytest.skip("not run: there is no /dev/full here")
    Path("proxy.yaml").write_text("mine")
    script = (
        "import sys, io, errno, pathlib\n"
        "opened = pathlib.Path.open\n"
        "def full(path, mode='r', **kw):\n"
        "    if mode == 'x':\n"
        "        opened(path, 'x').close()\n"
        "        return opened(pathlib.Path('/dev/full'), 'w')\n"
        "    return opened(path, mode, **kw)\n"
        "pathlib.Path.open = full\n"
        "from bucketfront.cli import main\n"
        "main(['init', '--bucket', 'media', *sys.argv[1:]])\n"
    )
    for options in (("--force",), ("new.yaml",)):
        done = subprocess.run(
            [sys.executable, "-c", script, *options], capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert done.returncode == 1
        assert "cannot write" in done.stderr
        assert "No space left" in done.stderr
        assert [path.name for path in Path().iterdir()] == ["proxy.yaml"]
        assert Path("proxy.yaml").read_text() == "mine"


ANSWERS = (
    ("Bucket: ", "a/b"),
    ("Bucket: ", "media"),
    ("]: ", ""),
    ("]: ", "eu-central-1"),
    ("]: ", ""),
    ("]: ", ""),
    ("]: ", ""),
    ("]: ", "20GiB"),
)


def talk(terminal: int, answers: Sequence[tuple[str, str]]) -> str:
    """Answer each prompt once it shows. Returns what follows the last one, up to the end of the program."""
    shown = ""
    for prompt, answer in answers:
        while prompt not in shown:
            assert select.select([terminal], [], [], HANG_S)[0], shown
            shown += os.read(terminal, 4096).decode()
        shown = shown.partition(prompt)[2]
        os.write(terminal, answer.encode() + b"\n")
    with contextlib.suppress(OSError):  # the end of a terminal
        while read := os.read(terminal, 4096):
            shown += read.decode()
    return shown


def test_init_asks_on_a_terminal() -> None:
    """On a terminal `init` asks, repeats the prompt after a wrong answer, and takes Enter for the default."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*MODULE, "init"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment_of_process()
    ) as process:
        os.close(theirs)
        try:
            shown = talk(ours, ANSWERS)
            assert process.wait(HANG_S) == 0, shown
        finally:
            process.kill()
    os.close(ours)
    settings = load(Path("proxy.yaml"), {})
    assert (settings.mounts[0].bucket, settings.origin.region) == ("media", "eu-central-1")
    assert (settings.origin.endpoint_url, settings.cache.max_size) == (None, 20 << 30)


def test_init_asks_only_on_a_terminal() -> None:
    """Without a terminal and without --bucket, `init` ends with status 2 and writes nothing."""
    result = invoke("init")
    assert result.exit_code == 2
    assert "--bucket" in result.stderr
    assert list(Path().iterdir()) == []
