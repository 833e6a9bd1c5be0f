"""The tasks of an operator, in the order of the table in docs/operations.md, by the commands that an operator types.

One proxy lives through all of it, as at a user's. Each command is a process of its own.
"""

import http.client
import json
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucketfront_process import ROOT
from command_line import MODULE, Running, environment_of_process, started
from held_port import held_port
from stopwatch import HANG_S

from bucketfront.cli import main

CONFIG = """\
server: {{port: {clients}}}
admin: {{port: {admin}}}
origin: {{endpoint_url: embedded}}
access:
  links: {{signed_url: {{keys: {{k1: {key}}}}}}}
mounts:
  - {{path: /, bucket: demo}}
  - {{path: /links/, bucket: demo, prefix: private/, read: [links]}}
cache: {{max_size: 64MiB, min_free: 0}}
pricing: {{currency: EUR, per_1000_gets: 0.0004, per_1000_puts: 0.005, per_gb_out: 0.09}}
access_log: {{path: access.log}}
"""
MISSPELT = """\
cache:
  max_szie: 1GiB
mounts:
  - {path: /, bucket: demo, methodes: [GET]}
"""
POLL_S = 0.2
PLAYLIST = "/hls/index.m3u8"
FILM = "/sample.mp4"
_ROW = re.compile(r"^\| \*\*(.+?)\*\* \|(.+)\| (.+?) \|$", re.MULTILINE)


class Operator:
    """Runs commands in the folder of a proxy, and notes which ones."""

    def __init__(self, folder: Path, clients: int, admin: int) -> None:
        self.folder = folder
        key = "0123456789abcdef" * 4
        self._config = CONFIG.format(clients=clients, admin=admin, key=key)
        self.proxy: subprocess.Popen[str] | None = None
        self.used: set[str] = set()
        self.running: Running

    def run(self, *arguments: str, status: int = 0, text: str | None = None) -> str:
        """Run a command, and return what it prints. Fails the test if it ends with another status."""
        self.used.add(arguments[0])
        done = subprocess.run(
            (*MODULE, *arguments),
            cwd=self.folder,
            env=environment_of_process(),
            input=text,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command that goes on."""
        self.used.add(arguments[0])
        return subprocess.Popen(
            (*MODULE, *arguments),
            cwd=self.folder,
            env=environment_of_process(PYTHONUNBUFFERED="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def serve(self, *arguments: str) -> None:
        """Start the proxy, and wait until it is ready."""
        self.proxy = self.begin(*arguments)
        self.running = started(self.proxy, "browser")

    def end(self) -> str:
        """End the proxy in order, and return what it still prints."""
        assert self.proxy is not None
        self.proxy.send_signal(signal.SIGTERM)
        _, errors = self.proxy.communicate(timeout=HANG_S)
        assert self.proxy.returncode == 0, errors
        self.proxy = None
        return errors

    def get(self, path: str, status: int = 200) -> str:
        """Request a path, and return its `Cache-Status`."""
        connection = http.client.HTTPConnection(self.running.clients, timeout=HANG_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert response.status == status, path
            return response.headers["Cache-Status"] or ""
        finally:
            connection.close()

    def write_configuration(self) -> None:
        (self.folder / "proxy.yaml").write_text(self._config)

    def configure(self, before: str, after: str) -> None:
        file = self.folder / "proxy.yaml"
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with held_port() as clients, held_port() as admin:
        found = Operator(tmp_path_factory.mktemp("operator"), clients, admin)
        yield found
        if found.proxy is not None:
            found.proxy.kill()
            found.proxy.communicate()


def first_run(operator: Operator) -> None:
    operator.serve("demo", "--port", "0", "--admin-port", "0")
    operator.get(FILM)
    assert operator.get(FILM).startswith("bucketfront; hit")
    operator.end()
    operator.run("init", "own.yaml", "--bucket", "my-bucket")
    assert "bucket: my-bucket" in (operator.folder / "own.yaml").read_text()
    operator.write_configuration()
    operator.run("check")
    operator.serve("serve")
    operator.run("healthcheck", "--ready")


def misspelt_key(operator: Operator) -> None:
    (operator.folder / "misspelt.yaml").write_text(MISSPELT)
    told = operator.run("check", "-c", "misspelt.yaml", status=2)
    assert "misspelt.yaml:2:3 cache.max_szie: unknown key. Did you mean max_size?" in told
    assert "misspelt.yaml:4:29 mounts[0].methodes: unknown key. Did you mean methods?" in told


def effective_config(operator: Operator) -> None:
    shown = operator.run("config", "show", "--sources")
    assert re.search(r"^  max_size: 64MiB +# proxy\.yaml:9", shown, re.MULTILINE)
    assert re.search(r"^  eviction: lru +# default", shown, re.MULTILINE)


def reload(operator: Operator) -> None:
    operator.configure("min_free: 0", "min_free: 0, idle_timeout: 2h")
    assert "reloaded, with other values of cache.idle_timeout\n" in operator.run("reload")
    operator.configure("64MiB", "32MiB")
    assert "proxy.yaml:9:19 cache.max_size: needs a restart" in operator.run("reload", status=1)
    operator.configure("32MiB", "64MiB")


def why_a_miss(operator: Operator) -> None:
    assert "next GET   miss: " in operator.run("explain", FILM)
    operator.get(FILM)
    assert "next GET   hit: it is fresh for another " in operator.run("explain", FILM)


def what_is_hot(operator: Operator) -> None:
    for _ in range(3):
        operator.get(PLAYLIST)
    top = json.loads(operator.run("top", "--once", "--json"))
    assert top["hottest"]["by_requests"][0]["path"] == PLAYLIST
    assert top["hottest"]["by_bytes"][0]["path"] == FILM


def what_is_filling(operator: Operator) -> None:
    assert json.loads(operator.run("top", "--once", "--json"))["fills"] == []  # test_live_commands.py has running ones
    assert "0 running" in operator.run("top", "--once")


def purge(operator: Operator) -> None:
    assert operator.run("purge", "--glob", "*.m3u8", "--dry-run") == f"{PLAYLIST}\n1 would be purged\n"
    assert operator.run("purge", "--glob", "*.m3u8") == "1 purged\n"
    assert "purged " in operator.run("explain", PLAYLIST)


def warm(operator: Operator) -> None:
    assert "7 filled" in operator.run("warm", PLAYLIST, "--rate", "100MB")
    assert operator.get("/hls/segment4.m4s").startswith("bucketfront; hit")


def size(operator: Operator) -> None:
    assert re.search(r"^a cache of +32\.0 MiB +64\.0 MiB +128 MiB +256 MiB$", operator.run("stats"), re.MULTILINE)


def cost(operator: Operator) -> None:
    total = json.loads(operator.run("stats", "--json"))["summary"]["total"]
    assert total["saved"]["money"] is not None
    assert total["money_spent"] > 0


def alert(operator: Operator) -> None:
    status, metrics = operator.running.get("/metrics", operator.running.admin)
    rules = (ROOT / "deploy" / "prometheus" / "bucketfront.rules.yml").read_text()
    assert status == 200
    assert "expr: bucketfront_degraded == 1" in rules
    assert "# TYPE bucketfront_degraded " in metrics.decode()


def move(operator: Operator) -> None:
    operator.run("export", "hot.jsonl")
    operator.run("purge", "--all")
    assert "8 filled" in operator.run("import", "hot.jsonl")


def drain(operator: Operator) -> None:
    operator.end()
    operator.run("healthcheck", status=1)
    assert re.search(r"^8 entries, \d+ blocks read: nothing found", operator.run("verify"), re.MULTILINE)


def live_tail(operator: Operator) -> None:
    operator.serve("serve")
    with operator.begin("tail", "--path", "*.mp4") as tail:
        try:
            assert tail.stdout is not None
            while not select.select([tail.stdout], [], [], POLL_S)[0]:
                operator.get(FILM)  # until the command is connected
            line = tail.stdout.readline()
            assert re.search(rf"Z 200 hit .* GET +{FILM}$", line.rstrip())
        finally:
            tail.kill()


def signed_links(operator: Operator) -> None:
    operator.get("/links/a", status=403)
    operator.get(operator.run("sign", "/links/a", "--expires", "10m").strip(), status=404)


TASKS = (
    first_run,
    misspelt_key,
    effective_config,
    reload,
    why_a_miss,
    what_is_hot,
    what_is_filling,
    purge,
    warm,
    size,
    cost,
    alert,
    move,
    drain,
)


@pytest.mark.long
def test_each_task(operator: Operator) -> None:
    """Each task of the table is done by the commands of its row, and each command of bucketfront has its part."""
    for task in (*TASKS, live_tail, signed_links):
        task(operator)
    assert operator.used == set(main.commands)


def test_the_table() -> None:
    """The first table has a row for each task, and bucketfront is worse in none of them."""
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = _ROW.findall(text[: text.index("Further tasks:")])
    assert [name.replace(" ", "_").lower() for name, _, _ in rows] == [task.__name__ for task in TASKS]
    assert {judgement for _, _, judgement in rows} == {"better", "as good"}
