"""The built wheel in an empty environment, as a user gets it from the package index."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings

ROOT = Path(__file__).parent.parent
INSTALL_TIMEOUT_S = 300.0  # seconds for pip, which downloads what the wheel depends on
READY_LINES = 50  # lines of standard error until the proxy has printed its addresses
CONFIG = """\
server: {port: 0}
admin: {port: 0}
origin:
  endpoint_url: ORIGIN
  create_bucket: true
  credentials: {access_key_id: any, secret_access_key: any}
mounts: [{path: /, bucket: films, methods: [GET, HEAD, PUT]}]
cache: {dir: CACHE, max_size: 64MiB, min_free: 1MiB}
"""

pytestmark = pytest.mark.long


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that no build directory is left in the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "proxy", source / "proxy", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the programs of an environment that holds the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    lock = ROOT / "requirements.lock"
    run(programs / "pip", "install", "--quiet", "--require-hashes", "-r", lock, cwd=folder)
    run(programs / "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    run(programs / "pip", "check", cwd=folder)
    return programs


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    """The wheel installs `bucketfront` and nothing beside it, typed: a package `proxy` would break proxy.py."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"bucketfront"}
    assert {"bucketfront/py.typed", "bucketfront/cli/demo.yaml", "bucketfront/s3/embedded/media/sample.mp4"} <= {*names}
    assert [name for name in names if name.endswith("share/man/man1/bucketfront.1")]


def test_the_wheel_in_an_empty_environment(programs: Path, moto_s3: OriginSettings, tmp_path: Path) -> None:
    """The plain install prints its version, `check` finds nothing wrong, and `serve` stores an object and returns it.

    It needs none of the packages of the embedded S3.
    """
    installed = run(programs / "pip", "list", "--format", "freeze", cwd=tmp_path)
    assert "aiohttp==" in installed
    assert "moto==" not in installed
    assert re.search(r"\d+\.\d+\.\d+", run(programs / "bucketfront", "--version", cwd=tmp_path))
    config = tmp_path / "proxy.yaml"
    config.write_text(CONFIG.replace("CACHE", str(tmp_path / "cache")).replace("ORIGIN", str(moto_s3.endpoint_url)))
    assert "bucket films: does not exist, and the start will make it" in run(
        programs / "bucketfront", "check", "-c", config, cwd=tmp_path
    )
    command = [str(programs / "bucketfront"), "serve", "-c", str(config)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            found = (re.search(r"clients\s+(http\S+)", line) for line in itertools.islice(lines, READY_LINES))
            address = next((match[1] for match in found if match), None)
            assert address is not None, "no address was printed"
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            put = urllib.request.Request(f"{address}/a.txt", data=b"data", method="PUT")
            with opener.open(put, timeout=HANG_S) as response:
                assert response.status == 201
            with opener.open(f"{address}/a.txt", timeout=HANG_S) as response:
                assert response.read() == b"data"
        finally:
            process.terminate()
            process.communicate(timeout=HANG_S)
