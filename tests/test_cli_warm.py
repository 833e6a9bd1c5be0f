"""`bucketfront warm`, `export` and `import` against a proxy in a process of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucketfront_process import Running, bucketfront
from click.testing import CliRunner, Result

from bucketfront.cli import main

CONFIG = """\
server: {{port: 0, workers: 1}}
admin: {{port: 0}}
origin: {{endpoint_url: embedded}}
mounts: [{{path: /, bucket: demo}}]
cache: {{dir: {folder}/cache, max_size: 64MiB, min_free: 0}}
access_log: {{path: {folder}/access.log}}
"""


class Commands:
    """Runs commands for one proxy."""

    def __init__(self, running: Running, config: Path) -> None:
        self._environment = {"BUCKETFRONT_ADMIN__PORT": running.admin_url.rpartition(":")[2]}
        self._config = str(config)

    def run(self, command: str, *arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(main, [command, "-c", self._config, *arguments], input=text, env=self._environment)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    folder = tmp_path_factory.mktemp("warm")
    with bucketfront(CONFIG.format(folder=folder), folder) as running:
        yield Commands(running, folder / "proxy.yaml")


def test_warm(commands: Commands) -> None:
    """It prints what it has filled, in words or as JSON, and is done at once if it is repeated."""
    first = commands.run("warm", "/hls/index.m3u8", "--rate", "100MB", "--parallel", "2")
    assert first.exit_code == 0, first.output
    assert "7 filled" in first.output
    again = commands.run("warm", "/hls/index.m3u8", "--json")
    report = json.loads(again.stdout)
    assert (report["state"], report["fresh"], report["documents"], report["filled"]) == ("done", 7, 1, 0)


def test_failures(commands: Commands) -> None:
    """It fails with the reason of each object, and with the cure for each wrong use."""
    failed = commands.run("warm", "/absent", "/index.html")
    assert failed.exit_code == 1
    assert "/absent: there is no such object" in failed.stderr
    for arguments, reason in (
        ((), "name PATHS"),
        (("/x", "--manifest", "-"), "or else --manifest"),
        (("/x", "--rate", "fast"), "must be a size"),
        (("/x", "--rate", "10Mib"), "write 10MiB"),
        (("--manifest", "/no/such/file"), "cannot read"),
    ):
        wrong = commands.run("warm", *arguments)
        assert wrong.exit_code == 2, arguments
        assert reason in wrong.stderr


def test_a_manifest(commands: Commands) -> None:
    """A manifest may come from standard input, and a line of no use is named."""
    assert commands.run("warm", "--manifest", "-", text="# all\n/index.html\n").exit_code == 0
    wrong = commands.run("warm", "--manifest", "-", text="/index.html\nindex.html\n")
    assert wrong.exit_code == 2
    assert "line 2" in wrong.stderr
    empty = commands.run("import", "-", text="")
    assert (empty.exit_code, empty.stderr) == (2, "the manifest names no objects\n")


def test_detached(commands: Commands) -> None:
    """With --detach it prints the id of a job that goes on."""
    started = commands.run("warm", "--prefix", "/", "--detach")
    assert started.exit_code == 0
    assert len(started.stdout.strip()) == 26


def test_export_and_import(commands: Commands, tmp_path: Path) -> None:
    """What was exported is filled again after a purge, in the same order."""
    assert commands.run("warm", "/index.html", "/sample.mp4").exit_code == 0
    file = tmp_path / "hot.jsonl"
    exported = commands.run("export", str(file))
    assert exported.exit_code == 0, exported.output
    header, *lines = file.read_text().splitlines()
    assert json.loads(header)["bucketfront-manifest"] == 1
    assert {"/index.html", "/sample.mp4"} <= {json.loads(line)["path"] for line in lines}
    assert commands.run("purge", "--prefix", "/").exit_code == 0
    imported = commands.run("import", str(file))
    assert imported.exit_code == 0, imported.output
    assert f"{len(lines)} filled" in imported.output
    assert commands.run("export", "-").stdout.splitlines()[0] == header
    refused = commands.run("export", "/no/such/folder/file")
    assert (refused.exit_code, "cannot write" in refused.stderr) == (1, True)
