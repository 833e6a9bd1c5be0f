"""Bucketfront as it is deployed: the image of the Dockerfile, and a fresh clone by the README.

`tests/test_wheel.py` has the wheel in an empty environment.
"""

import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import container
import pytest
from bucketfront_process import ROOT
from case import Case
from fakes import object_bytes
from held_port import held_port
from programs import Program, installed, run, version_of
from site_under_test import Origin

MIB = 1 << 20
DEADLINE_S = 300.0  # seconds for an installation, on a slow machine
END_TIMEOUT_S = 60.0
POLL_S = 0.1
PORTS = (8080, 8081)  # of clients and of operators, in the README and in the image


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh clone of the last commit."""
    git = installed("git")
    folder = tmp_path_factory.mktemp("clone")
    if not (ROOT / ".git").exists():
        pytest.skip("not run: this is no clone")
    run(git.path, "clone", "--quiet", str(ROOT), "bucketfront", folder=folder)
    return folder / "bucketfront"


def readme_ports(stack: contextlib.ExitStack) -> tuple[int, int]:
    """Hold the ports of the README, or others if one of those is taken."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as held:
        for port in PORTS:
            held.enter_context(held_port(port))
        stack.enter_context(held.pop_all())
        return PORTS
    return stack.enter_context(held_port()), stack.enter_context(held_port())


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
        printed = log.read_text(errors="replace")[-3000:]
        assert process.poll() is None, f"it ended with {process.returncode}: {printed}"
        assert time.monotonic() < deadline, f"it was not ready in time: {printed}"
        time.sleep(POLL_S)


def blocks(heading: str) -> list[list[str]]:
    """Return the lines of each shell block below a heading of the README."""
    section = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (found,) = (text for text in section if text.startswith(f"{heading}\n"))
    return [block.strip().splitlines() for block in re.findall(r"^```sh\n(.*?)^```", found, re.DOTALL | re.MULTILINE)]


@dataclass(frozen=True, slots=True)
class Made:
    """The README's `make run`, which may still install."""

    process: "subprocess.Popen[bytes]"
    ports: tuple[int, int]
    log: Path


@pytest.fixture(scope="module")
def made(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Run the README's first line in the clone. It installs the proxy and all that it needs, and starts it."""
    installed("make")
    (line,) = blocks("Quickstart")[0]
    held = contextlib.ExitStack()
    ports = readme_ports(held)
    log = tmp_path_factory.mktemp("make") / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BUCKETFRONT_", "AWS_"))}
    environment.pop("PYTHONPATH", None)
    if ports != PORTS:
        environment |= {"BUCKETFRONT_SERVER__PORT": str(ports[0]), "BUCKETFRONT_ADMIN__PORT": str(ports[1])}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ("sh", "-c", line),
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Made(process, ports, log)
    finally:
        # The group is this process and what it started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        held.close()


def serves(image: container.Image, pid: int, ports: tuple[int, int]) -> None:
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
    assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    data = object_bytes(MIB)
    connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request("PUT", "/container/film", data)
        created = connection.getresponse()
        assert (created.status, created.read()[:1]) == (201, b"{")
        connection.request("GET", "/container/film")
        assert connection.getresponse().read() == data
    checked = container.run_beside(image, pid, *image.health)
    assert checked.returncode == 0, checked.stderr
    for place in ("/etc/file", "/tmp/file", "/opt/bucketfront/file"):
        refused = container.run_beside(image, pid, "touch", place)
        assert "Read-only file system" in refused.stderr


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    with held_port() as clients, held_port() as admin:
        yield clients, admin


def test_dockerfile(
    made: Made, clone: Path, ports: tuple[int, int], origin: Origin, case: Case, tmp_path: Path
) -> None:
    """The image starts as process 1 and another user, with its root read-only, serves, is healthy, and ends in order.

    The README's installation goes on beside it.
    """
    mmdebstrap = installed("mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("not run: roots and namespaces need root")
    case.of(
        Program("Dockerfile", mmdebstrap.path, ""), "its steps in a fresh root without an engine, user 10001, read-only"
    )
    case.cannot("No engine: Debian's Python stands for the image `python:3.12-slim`, and the network is the host's.")
    roots = tmp_path / "roots"
    roots.mkdir()
    image = container.built(clone / "Dockerfile", container.base_root(roots), roots)
    assert (image.user, image.volumes, image.folder) == ("10001:10001", ("/cache",), "/etc/bucketfront")
    config = tmp_path / "proxy.yaml"
    text = origin.configuration(tmp_path).replace("server: {port: 0}", f"server: {{port: {ports[0]}}}")
    text = text.replace("admin: {port: 0}", f"admin: {{port: {ports[1]}}}")
    # The image listens on all addresses, so a mount that takes writes says who may write.
    text = text.replace("methods: [", "write: [public], methods: [")
    # As in a deployment, the image decides on the folder of the cache, and the log is standard output.
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("cache:", "access_log:")))
    config.write_text(text)
    config.chmod(0o644)
    log = tmp_path / "log"
    process = container.start(image, {"/etc/bucketfront/proxy.yaml": config}, log)
    try:
        wait_until_ready(process, ports[1], log)
        pid = container.process_1(process)
        serves(image, pid, ports)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text(errors="replace")
    files = [path for path in (tmp_path / "volume-cache").rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_uid for path in files} == {10001}
    shutil.rmtree(roots)


def test_readme(made: Made, clone: Path, case: Case) -> None:
    """A fresh clone does what the README says, line by line: `make run`, and the examples of reads and uploads."""
    python = shutil.which("python3") or sys.executable
    case.of(Program("README", python, version_of(python, "--version")), "`make run` in a fresh clone, and its examples")
    curl = installed("curl")
    for name in ("film.mp4", "photo.jpg", "1.jpg", "2.jpg"):
        (clone / name).write_bytes(object_bytes(10_000))
    wait_until_ready(made.process, made.ports[1], made.log)

    def output_of(line: str) -> str:
        words = [word.replace(":8080/", f":{made.ports[0]}/") for word in shlex.split(line, comments=True)]
        assert words[0] == "curl", line
        return run(curl.path, "-sS", "-w", r"\n%{http_code}", *words[1:], folder=clone).stdout.decode()

    _, reads, *_ = blocks("Quickstart")
    head, part, put = (output_of(line) for line in reads)
    assert head.startswith("HTTP/1.1 200")
    assert part.startswith("HTTP/1.1 206")
    assert put.endswith("\n201")
    for line in blocks("Uploads")[0]:
        code = re.search(r"# (\d{3})\b", line)
        assert output_of(line).endswith(f"\n{code[1] if code else 201}"), line
    assert "Traceback" not in made.log.read_text(errors="replace")
