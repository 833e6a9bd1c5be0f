"""The lock files, from which everything is installed: complete, of one set of versions, and each file with its hash."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rows import each_row

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ALL = sorted(ROOT.glob("requirements*.lock"))
_PIN = re.compile(r"([a-z0-9-]+)==([^ ;]+)(?: ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def pins(lock: Path) -> dict[str, str]:
    """Return the versions by name. Raises AssertionError if there is anything else in the file, or no hash."""
    text = lock.read_text()
    assert _PIN.sub("", text) == ""
    return {name: version for name, version, _ in _PIN.findall(text)}


def declared(name: str) -> list[Requirement]:
    """Return what pyproject.toml requires for a lock, by the lock's name."""
    runtime, extras = PROJECT["project"]["dependencies"], PROJECT["project"]["optional-dependencies"]
    texts = {
        "requirements.lock": [*runtime, *extras["bus"]],
        "requirements-dev.lock": [*runtime, *extras["bus"], *extras["demo"], *extras["otel"], *extras["dev"]],
        "requirements-build.lock": [*PROJECT["build-system"]["requires"], *PROJECT["dependency-groups"]["build"]],
        "requirements-audit.lock": PROJECT["dependency-groups"]["audit"],
        "requirements-site.lock": PROJECT["dependency-groups"]["site"],
    }
    return [Requirement(text) for text in texts[name] if not text.startswith("bucketfront[")]


@each_row("lock", ALL, ids=lambda lock: lock.name)
def test_each_requirement_is_pinned(lock: Path) -> None:
    """Each requirement has one version that it permits, with hashes. A lock names no package index."""
    found = pins(lock)
    for requirement in declared(lock.name):
        version = found[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_what_is_tested_is_what_is_installed() -> None:
    """The tests run with the versions of the image."""
    tested = pins(ROOT / "requirements-dev.lock")
    installed = pins(ROOT / "requirements.lock")
    assert installed.items() <= tested.items()
    assert "moto" not in installed
