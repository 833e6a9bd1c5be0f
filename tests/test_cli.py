"""The command line: its output, and its exit status (0 success, 1 failure, 2 wrong use)."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from command_line import invoke
from rows import each_row
from stopwatch import HANG_S

from bucketfront import __version__
from bucketfront.cache.storage.index import Index
from bucketfront.cli import main
from bucketfront.cli import purge as purge_command
from bucketfront.config.loader import load
from bucketfront.server.access.rule import AccessRequest, Grant
from bucketfront.server.access.signed_url import SignedUrlRule

ROOT = Path(__file__).parent.parent
CONFIG = """\
server: {port: 0, workers: 1}
admin: {port: 0}
origin:
  endpoint_url: embedded
mounts:
  - {path: /, bucket: demo, methods: [GET, HEAD, PUT]}
cache: {dir: DIR, max_size: 64MiB, min_free: 0}
access_log: {path: LOG}
"""


@dataclass(frozen=True, slots=True)
class Served:
    config: Path
    announcement: str  # standard error up to its last line
    clients: str
    admin: str
    origin: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which the other commands find this one's admin port."""
        return {"BUCKETFRONT_ADMIN__PORT": self.admin.rpartition(":")[2]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A `bucketfront serve` in a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    config = folder / "proxy.yaml"
    config.write_text(CONFIG.replace("DIR", str(folder / "cache")).replace("LOG", str(folder / "access.log")))
    command = [sys.executable, "-m", "bucketfront.cli", "serve", "-c", str(config)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            lines: list[str] = []
            while not lines or "browser" not in lines[-1]:
                line = process.stderr.readline()
                assert line, "".join(lines)
                lines.append(line)
            text = "".join(lines)
            urls = [re.search(rf"{name} .*?(http://\S+?)[;\s]", text) for name in ("clients", "admin", "origin")]
            clients, admin, origin = (found[1] for found in urls if found is not None)
            yield Served(config, text, clients, admin, origin)
        finally:
            process.terminate()
            process.communicate(timeout=HANG_S)


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, without the developer's own settings in the environment."""
    for name in [name for name in os.environ if name.startswith("BUCKETFRONT_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path, env: dict[str, str] | None = None, standard_input: bytes | None = None) -> Result:
        return invoke(*arguments, standard_input=standard_input, **(env or {}))

    return run


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=HANG_S) as response:
        return bytes(response.read())


def test_help_is_cheap() -> None:
    """The command line loads nothing heavy before a command needs it, so `--help` and completion are quick."""
    program = "import sys, bucketfront.cli; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"aiohttp", "aiobotocore", "botocore", "boto3", "pydantic", "yaml", "prometheus_client", "asyncio"}
    heavy |= {"importlib.metadata", "email", "zipfile"}
    assert "click" in found
    assert heavy.intersection(found) == set()


@each_row("arguments", [(), *((name,) for name in main.commands), ("config", "show"), ("config", "schema")])
def test_help(run: Run, arguments: tuple[str, ...]) -> None:
    """Every command explains itself, with exit status 0."""
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_version(run: Run) -> None:
    """`--version` names the program and its version."""
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.split()[0] == "bucketfront,"
    assert __version__ in result.output


@each_row("command", [("serve",), ("check",), ("purge", "/x"), ("stats",), ("sign", "/x"), ("tail",), ("top",)])
def test_wrong_configuration(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A wrong configuration ends every command with status 2, naming file, line, key and the nearest name (I30)."""
    config = tmp_path / "proxy.yaml"
    config.write_text("mounts:\n  - {path: /, bucket: b}\ncache:\n  max_szie: 1GiB\n  idle_timeout: soon\n")
    result = run(*command, "-c", config)
    assert result.exit_code == 2
    assert f"{config}:4:3" in result.stderr
    assert "cache.max_szie" in result.stderr
    assert "Did you mean max_size?" in result.stderr
    assert f"{config}:5:" in result.stderr  # all errors at once
    assert "Traceback" not in result.stderr


def test_no_configuration(run: Run, tmp_path: Path) -> None:
    """A configuration file that does not exist is wrong use, and is named."""
    result = run("serve", "-c", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert "none.yaml" in result.stderr


@each_row("arguments", [("purge",), ("nonsense",), ("serve", "--nonsense")])
def test_wrong_use(run: Run, arguments: tuple[str, ...]) -> None:
    """Wrong use is status 2."""
    assert run(*arguments).exit_code == 2


def test_sign(run: Run, tmp_path: Path) -> None:
    """`sign` prints a URL that its rule takes, or a cookie, and says what is wrong with its options."""
    config = tmp_path / "proxy.yaml"
    rule = "{signed_url: {keys: {k1: a-secret-of-sixteen-bytes, k2: another-one-of-that-length}, cookies: true}}"
    config.write_text(f"access: {{links: {rule}}}\nmounts: [{{path: /, bucket: b, read: [links]}}]\n")
    settings = load(config, {}).access["links"].signed_url
    assert settings is not None

    def permits(path: str, query: str = "", cookie: str | None = None) -> bool:
        asked = AccessRequest("GET", path, query, {"cookie": cookie}.get, None, time.time())
        return isinstance(asyncio.run(SignedUrlRule(settings).examine(asked)), Grant)

    for options in ((), ("--key", "k1"), ("--expires", "7d"), ("--rule", "links")):
        signed = run("sign", "/a b.mp4", *options, "-c", config).output.strip()
        path, _, query = signed.partition("?")
        assert path == "/a%20b.mp4"
        assert permits(path, query)
    cookie = run("sign", "/films/", "--cookie", "-c", config).output
    assert "; Path=/films/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax" in cookie
    assert permits("/films/a.ts", cookie=cookie.partition(";")[0])
    told = json.loads(run("sign", "/a", "--json", "-c", config).output)
    assert told["signed"].startswith("/a?bf_key=k2&")
    for wrong in (
        ("a",),
        ("/a?b",),
        ("/a", "--cookie"),
        ("/a", "--expires", "soon"),
        ("/a", "--expires", "8d"),
        ("/a", "--key", "k3"),
        ("/a", "--method", "FETCH"),
        ("/a", "--network", "somewhere"),
        ("/a", "--rule", "other"),
    ):
        result = run("sign", *wrong, "-c", config)
        assert result.exit_code == 2, wrong
        assert "sixteen" not in result.output + result.stderr


def test_serve_prints_its_addresses(served: Served) -> None:
    """`serve` prints both addresses, the origin's, and commands that work as printed."""
    assert f"bucketfront {__version__}" in served.announcement
    tries = re.findall(r"^  curl .*$", served.announcement, re.MULTILINE)
    assert len(tries) == 3
    for line in tries:
        assert f"{served.clients}/" in line
    sample = (ROOT / "examples" / "media" / "sample.mp4").read_bytes()
    assert fetch(f"{served.clients}/sample.mp4") == sample
    assert fetch(f"{served.admin}/readyz") == b"ready\n"


def test_explain(run: Run, served: Served) -> None:
    """`explain` shows what the proxy that runs has of a path. A path that is none is wrong use."""
    fetch(served.clients + "/sample.mp4")
    result = run("explain", "/sample.mp4", "-c", served.config, env=served.environment)
    assert result.exit_code == 0
    assert result.output.startswith("/sample.mp4\n  next GET   hit: it is fresh for another ")
    assert "\x1b" not in result.output
    result = run("explain", "--json", "/sample.mp4", "-c", served.config, env=served.environment)
    assert json.loads(result.output)["next"]["decision"] == "hit"
    assert run("explain", "/never", "-c", served.config, env=served.environment).exit_code == 0
    result = run("explain", "never", "-c", served.config, env=served.environment)
    assert (result.exit_code, "neither a path" in result.output) == (2, True)


def test_purge_and_stats(run: Run, served: Served) -> None:
    """`purge` and `stats` use the proxy that runs with the same configuration."""
    paths = ("/sample.mp4", "/index.html", "/hls/index.m3u8")
    for path in paths:
        fetch(served.clients + path)

    def entries() -> int:
        result = run("stats", "--json", "-c", served.config, env=served.environment)
        assert result.exit_code == 0
        return int(json.loads(result.output)["entries"])

    assert entries() == 3
    result = run("stats", "-c", served.config, env=served.environment)
    assert re.search(r"^read by clients +\d+ ", result.output, re.MULTILINE)
    assert "cache: 3 objects" in result.output
    assert "entries" not in result.output
    result = run("stats", "--counters", "-c", served.config, env=served.environment)
    assert re.search(r"^entries +3$", result.output, re.MULTILINE)
    result = run("purge", "/index.html", "/never", "-c", served.config, env=served.environment)
    assert (result.exit_code, result.output) == (0, "1 purged\n")
    result = run("purge", "--soft", "/sample.mp4", "-c", served.config, env=served.environment)
    assert (result.exit_code, result.output) == (0, "1 marked stale\n")
    assert entries() == 2
    result = run("purge", "--prefix", "/", "--json", "-c", served.config, env=served.environment)
    assert (result.exit_code, json.loads(result.output)) == (0, {"purged": 2})
    assert entries() == 0


def test_purge_by_glob_and_all(run: Run, served: Served) -> None:
    """A dry run lists what the same command purges afterwards. A glob without a match says so, with status 0."""

    def purge(*arguments: str) -> tuple[int, str]:
        result = run("purge", *arguments, "-c", served.config, env=served.environment)
        return result.exit_code, result.output

    for path in ("/sample.mp4", "/index.html", "/hls/index.m3u8"):
        fetch(served.clients + path)
    assert purge("--glob", "/hls/**/*.ts") == (0, "0 purged: nothing cached matches\n")
    assert purge("--glob", "*.m3u8", "--dry-run") == (0, "/hls/index.m3u8\n1 would be purged\n")
    assert purge("--glob", "*.m3u8", "--soft") == (0, "1 marked stale\n")
    status, listed = purge("--all", "--dry-run", "--json")
    found = json.loads(listed)
    assert (status, found["purged"], found["dry_run"], len(found["objects"])) == (0, 3, True, 3)
    assert purge("--all") == (0, "3 purged\n")
    assert purge("--tag", "release-7", "--tag", "x") == (0, "0 purged: nothing cached matches\n")
    assert purge("--tag", "a b")[0] == purge("--tag", "")[0] == 2
    assert purge("--glob", "a\nb")[0] == purge("--glob", "")[0] == 2


def test_purge_from_a_file(run: Run, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of a file is purged, in batches. Lines that name no object are named, and cost no other line."""
    paths = ("/sample.mp4", "/index.html", "/hls/index.m3u8")
    file = tmp_path / "paths.txt"
    monkeypatch.setattr(purge_command, "BATCH_PATHS", 2)
    lines = (
        b"\xef\xbb\xbf# published today", b"", b"/sample.mp4", b"/bad%zz", b"/index.html\r", b"/never", b"no slash",
        b"/\xe4", b"  https://example.com/hls/index.m3u8 ", b"/sample.mp4", b"/",
    )  # fmt: skip
    file.write_bytes(b"\n".join(lines))
    for source in (file, "-"):
        for path in paths:
            fetch(served.clients + path)
        result = run(
            "purge", "--file", source, "-c", served.config, env=served.environment, standard_input=file.read_bytes()
        )
        assert (result.exit_code, result.stdout) == (1, "3 purged\n")
        assert re.findall(r"^line (\d+): ", result.stderr, re.MULTILINE) == ["4", "7", "8", "11"]
    result = run("purge", "--file", file, "--json", "-c", served.config, env=served.environment)
    assert [bad["line"] for bad in json.loads(result.stdout)["bad_lines"]] == [4, 7, 8, 11]
    file.write_text("/sample.mp4\n")
    result = run("purge", "--file", file, "-c", served.config, env=served.environment)
    assert (result.exit_code, result.output) == (0, "0 purged: nothing cached matches\n")
    result = run("purge", "--file", file, "-c", served.config, env={"BUCKETFRONT_ADMIN__PORT": "1"})
    assert result.exit_code == 1
    assert "lines 1 to 1" in result.stderr


def test_dry_and_soft_purges_from_a_file(
    run: Run, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that several batches of a file have count once, also if nothing is removed. A dry run changes nothing."""
    monkeypatch.setattr(purge_command, "BATCH_PATHS", 2)
    file = tmp_path / "paths.txt"
    file.write_text("/sample.mp4\n/index.html\n/sample.mp4\n/never\n/index.html\n")
    run("purge", "--all", "-c", served.config, env=served.environment)
    for path in ("/sample.mp4", "/index.html"):
        fetch(served.clients + path)

    def purge(*flags: str) -> tuple[int, list[str]]:
        result = run("purge", "--file", file, *flags, "-c", served.config, env=served.environment)
        return result.exit_code, sorted(result.output.splitlines())

    for _ in range(2):
        assert purge("--dry-run") == (0, ["/index.html", "/sample.mp4", "2 would be purged"])
    assert purge("--soft", "--dry-run") == (0, ["/index.html", "/sample.mp4", "2 would be marked stale"])
    assert purge("--soft") == purge("--soft") == (0, ["2 marked stale"])
    assert purge() == (0, ["2 purged"])
    assert purge("--dry-run") == (0, ["0 would be purged: nothing cached matches"])


def test_refused_purge(run: Run, served: Served) -> None:
    """A request that the proxy rejects ends the command with status 1 and the reason."""
    result = run("purge", "/%zz", "-c", served.config, env=served.environment)
    assert result.exit_code == 1
    assert "percent-escape" in result.stderr


def test_unreachable_admin(run: Run, served: Served) -> None:
    """Without a running proxy `purge` and `stats` end with status 1, the address and the fix."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so connections are refused
        port = str(taken.getsockname()[1])
        for command in (("purge", "/x"), ("stats",)):
            result = run(*command, "-c", served.config, env={"BUCKETFRONT_ADMIN__PORT": port})
            assert result.exit_code == 1
            assert f"http://127.0.0.1:{port}/" in result.stderr
            assert "Is the proxy running" in result.stderr


def test_cache_in_use(run: Run, served: Served) -> None:
    """A second `serve` on the same folder ends with status 1 and the reason; the first continues."""
    result = run("serve", "-c", served.config)
    assert result.exit_code == 1
    assert "in use by another bucketfront" in result.stderr
    assert fetch(f"{served.admin}/healthz") == b"ok\n"


def test_port_in_use(served: Served, tmp_path: Path) -> None:
    """A port in use ends the start with status 1 and one line."""
    environment = {
        **os.environ,
        "BUCKETFRONT_SERVER__PORT": served.clients.rpartition(":")[2],
        "BUCKETFRONT_CACHE__DIR": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "bucketfront.cli", "serve", "-c", str(served.config)]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert result.returncode == 1
    assert "cannot listen" in result.stderr
    assert "Traceback" not in result.stderr


def check_config(served: Served, tmp_path: Path, **changes: str) -> Path:
    text = f"""\
origin:
  endpoint_url: {changes.get("endpoint", served.origin)}
  credentials: {{access_key_id: any, secret_access_key: any}}
  addressing_style: path
  connect_timeout: 500ms
  read_timeout: 5s
server: {{port: 0, workers: 1}}
admin: {{port: 0}}
mounts:
  - {{path: /, bucket: {changes.get("bucket", "demo")}}}
cache: {{dir: {changes.get("dir", tmp_path / "cache")}, max_size: 64MiB, min_free: 0}}
"""
    config = tmp_path / "check.yaml"
    config.touch(0o600)  # it has secrets
    config.write_text(text)
    return config


def test_check_finds_all_fine(run: Run, served: Served, tmp_path: Path) -> None:
    """`check` prints one line for each check, with status 0; `--json` has the same results."""
    config = check_config(served, tmp_path)
    result = run("check", "-c", config)
    lines = result.output.splitlines()
    assert result.exit_code == 0, result.output
    assert [line[:5] for line in lines] == ["ok   "] * len(lines)
    assert f"ok   cache folder {tmp_path / 'cache'}: will be made" in lines
    assert f"ok   origin: {served.origin}, region us-east-1" in lines
    assert any(line.startswith("ok   bucket demo: reachable") for line in lines)
    found = json.loads(run("check", "--json", "-c", config).output)
    assert [row["subject"] for row in found] == [
        "configuration",
        "open files",
        "workers",
        "access log",
        "client port",
        "admin port",
        "cache folder",
        "cache space",
        "origin",
        "bucket",
    ]
    assert all(row["ok"] and row["verdict"] == "fine" and row["message"] for row in found)
    assert found[-1]["name"] == "demo"
    assert not (tmp_path / "cache").exists()  # `check` creates nothing


def test_check_of_a_bucket_that_is_made_at_the_start(run: Run, served: Served, tmp_path: Path) -> None:
    """With `origin.create_bucket` a missing bucket is no fault."""
    config = check_config(served, tmp_path, bucket="no-such-bucket")
    result = run("check", "-c", config, env={"BUCKETFRONT_ORIGIN__CREATE_BUCKET": "true"})
    assert result.exit_code == 0
    assert "bucket no-such-bucket: does not exist, and the start will make it" in result.output


def test_check_of_a_wrong_configuration(run: Run, tmp_path: Path) -> None:
    """With `--json` the problems of a configuration are results as well, with status 2."""
    config = tmp_path / "proxy.yaml"
    config.write_text("mounts:\n  - {path: /, bucket: b}\ncache:\n  max_szie: 1GiB\n")
    result = run("check", "--json", "-c", config)
    assert result.exit_code == 2
    (row,) = json.loads(result.stdout)
    assert (row["subject"], row["ok"], row["name"]) == ("configuration", False, str(config))
    assert row["message"].startswith(f"{config}:4:3 cache.max_szie: unknown key")


def test_check_of_the_embedded_origin(run: Run, served: Served) -> None:
    """An embedded origin needs no check, and a proxy that runs with the same configuration is recognised."""
    result = run("check", "-c", served.config, env=served.environment)
    assert result.exit_code == 0, result.output
    assert "embedded" in result.output
    assert result.output.count("in use by the proxy that runs with this configuration, process ") == 2


def test_check_beside_another_proxy(run: Run, served: Served, tmp_path: Path) -> None:
    """Ports and folders of a proxy with another configuration are in use, with status 1 and the process."""
    port = served.clients.rpartition(":")[2]
    config = check_config(served, tmp_path, dir=str(served.config.parent / "cache"))
    result = run("check", "-c", config, env={"BUCKETFRONT_SERVER__PORT": port})
    failed = [line for line in result.output.splitlines() if line.startswith("FAIL")]
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in failed] == [
        f"FAIL client port 127.0.0.1:{port}",
        f"FAIL cache folder {served.config.parent / 'cache'}",
    ]
    assert all("process " in line for line in failed)
    assert "BUCKETFRONT_SERVER__PORT: cannot listen" in failed[0]


@pytest.mark.parametrize(
    ("tls", "log"), [("null", "none/access.log"), ("{certificate: none, key: none}", "access.log")]
)
def test_a_file_that_the_start_needs(run: Run, tmp_path: Path, tls: str, log: str) -> None:
    """A missing file or folder ends `serve` with status 2, and `check` with 1, with file, line and column (I30)."""
    config = tmp_path / "proxy.yaml"
    config.write_text(
        f"server: {{port: 0, tls: {tls}}}\naccess_log: {{path: {tmp_path / log}}}\n"
        "mounts: [{path: /, bucket: demo}]\norigin: {endpoint_url: embedded}\n"
        f"admin: {{port: 0}}\ncache: {{dir: {tmp_path / 'cache'}}}\n"
    )
    line = 2 if tls == "null" else 1
    served = run("serve", "-c", config)
    assert served.exit_code == 2
    assert served.stderr.splitlines()[-1].startswith(f"{config}:{line}:")
    checked = run("check", "-c", config)
    assert checked.exit_code == 1
    assert f": {config}:{line}:" in checked.output


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"bucket": "no-such-bucket"}, "bucket no-such-bucket", "create_bucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "bucket demo", "origin.endpoint_url"),
        ({"dir": "/dev/null/cache"}, "cache folder /dev/null/cache", "cache.dir"),
    ],
)
def test_check_finds_faults(
    run: Run, served: Served, tmp_path: Path, changes: dict[str, str], what: str, fix: str
) -> None:
    """A failed check is one FAIL line with the fix, and status 1; the other checks still run."""
    result = run("check", "-c", check_config(served, tmp_path, **changes))
    assert result.exit_code == 1
    (failed,) = [line for line in result.output.splitlines() if line.startswith("FAIL")]
    assert what in failed
    assert fix in failed
    assert "ok   configuration: 1 mount" in result.output


def test_verify(run: Run, served: Served, tmp_path: Path) -> None:
    """`verify` reads a cache in use and finds it sound, status 0; a repair of a cache in use is refused, status 1."""
    result = run("verify", "--json", "-c", served.config)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["findings"] == []
    assert "nothing found" in run("verify", "-c", served.config).stdout
    refused = run("verify", "--repair", "-c", served.config)
    assert refused.exit_code == 1
    assert "in use by another bucketfront" in refused.output
    missing = run("verify", "-c", check_config(served, tmp_path))
    assert missing.exit_code == 1
    assert f"there is no cache in {tmp_path / 'cache'}" in missing.output


def test_verify_repairs(run: Run, served: Served, tmp_path: Path) -> None:
    """Damage is reported with its place and status 1 until it is repaired, then status 0."""
    config = check_config(served, tmp_path)
    index = Index(tmp_path / "cache" / "index.db", "any", block_size=32 << 10)
    shard = tmp_path / "cache" / "objects" / "00"
    shard.mkdir(parents=True)
    index.open()
    index.abandon()
    (shard / ("0" * 26)).write_text("nobody's")
    for arguments, status, word in (((), 1, "found"), (("--repair",), 0, "repaired"), ((), 0, "nothing found")):
        result = run("verify", *arguments, "-c", config)
        assert result.exit_code == status
        assert word in result.stdout
        assert (f"objects/00/{'0' * 26}" in result.stdout) == (word != "nothing found")
    assert list(shard.iterdir()) == []


HANGING = """
import sys, time
from bucketfront.cli import main, serve
from bucketfront.cache.storage.file_storage import FileStorage

serve.STOP_TIMEOUT_S = 0.5
FileStorage.close = lambda _: time.sleep(60)
sys.argv[1:] = ["serve", "-c", sys.argv[1]]
main()
"""


def test_a_stop_that_hangs(tmp_path: Path) -> None:
    """A hanging disk does not prevent the end of the process, which counts as unclean and is reported (I14, I20)."""
    config = tmp_path / "proxy.yaml"
    config.write_text(CONFIG.replace("DIR", str(tmp_path / "cache")).replace("LOG", str(tmp_path / "access.log")))
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, str(config)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "browser" not in process.stderr.readline():
            assert process.poll() is None
        process.terminate()
        _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 1
    assert stderr.strip() == "the stop took longer than 0.5 s: ended as by kill -9"


def test_reload(run: Run, served: Served) -> None:
    """`reload` names what has changed. It names a change that needs a restart with its place, and exits with 1 then."""
    before = served.config.read_text()
    command = ("reload", "-c", served.config)
    try:
        served.config.write_text(f"{before}cors: {{allow_origins: []}}\n")
        result = run(*command, env=served.environment)
        assert (result.exit_code, result.output) == (0, "reloaded, with other values of cors.allow_origins\n")
        served.config.write_text(before.replace("64MiB", "32MiB"))
        result = run(*command, env=served.environment)
        assert result.exit_code == 1
        assert f"{served.config}:7:" in result.output
        assert "cache.max_size: needs a restart" in result.output
        assert result.output.endswith("not reloaded: the configuration before goes on\n")
    finally:
        served.config.write_text(before)
    result = run(*command, "--json", env=served.environment)
    assert result.exit_code == 0
    assert json.loads(result.output)["changed"] == ["cors.allow_origins"]
