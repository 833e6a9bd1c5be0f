"""A release is a git tag. It has the version of the package, and an entry in the changelog with an upgrade note."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from rows import each_row

ROOT = Path(__file__).parents[1]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NOTE = "Needs attention"

_RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", re.MULTILINE)
_SECTIONS = re.compile(r"^## \[([\w.]+)\].*\n(?s:.*?)^### (.+)$", re.MULTILINE)
_IMAGE = re.compile(r"^ *image: bucketfront:(\S+)$", re.MULTILINE)


def problems(changelog: str, version: str, tags: set[str], tags_of_head: set[str]) -> list[str]:
    """Return what is wrong with the releases. A tag is v1.2.3."""
    released = {f"v{found}" for found in _RELEASE.findall(changelog)}
    found = [f"{tag} has no entry in the changelog" for tag in sorted(tags - released)]
    found += [
        f"{tag} is not v{version}, the version of pyproject.toml" for tag in sorted(tags_of_head - {f"v{version}"})
    ]
    found += [f"{name} begins with {first}" for name, first in _SECTIONS.findall(changelog) if first != NOTE]
    return found


def tags(*options: str) -> set[str]:
    command = ("git", "-C", str(ROOT), "tag", "--list", "v*", *options)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not run: this is no clone of the repository")
    return set(done.stdout.split())


def test_tags_have_entries() -> None:
    """Each tag has an entry, that of this commit is the version, and each entry begins with its upgrade note."""
    assert problems((ROOT / "CHANGELOG.md").read_text(), VERSION, tags(), tags("--points-at", "HEAD")) == []


@each_row(
    ("changelog", "version", "of_head", "count"),
    [
        ("## [1.2.3] - 2026-12-01\n\n### Needs attention\n\n### Added\n", "1.2.3", {"v1.2.3"}, 0),
        ("## [1.2.3] - 2026-12-01\n\n### Needs attention\n", "1.2.4", set(), 0),
        ("## [1.2.3] - 2026-12-01\n\n### Needs attention\n", "1.2.4", {"v1.2.3"}, 1),
        ("## [1.2.3] - 2026-12-01\n\n### Added\n\n### Needs attention\n", "1.2.3", set(), 1),
        ("## [Unreleased]\n\n### Needs attention\n", "1.2.3", set(), 1),
        ("## [Unreleased]\n\n### Added\n\n## [1.2.3] - 2026-12-01\n\n### Needs attention\n", "1.2.3", set(), 1),
    ],
)
def test_a_wrong_release_is_found(changelog: str, version: str, of_head: set[str], count: int) -> None:
    """A missing entry, another version, and an entry without an upgrade note at its head are found."""
    assert len(problems(changelog, version, {"v1.2.3"}, of_head)) == count


def test_files_of_deploy_have_the_version() -> None:
    """The Helm chart and the manifests of Kubernetes name the image of this version."""
    chart = yaml.safe_load((ROOT / "deploy" / "helm" / "bucketfront" / "Chart.yaml").read_text())
    images = [
        image for file in (ROOT / "deploy" / "kubernetes").glob("*.yaml") for image in _IMAGE.findall(file.read_text())
    ]
    assert images
    assert {chart["version"], chart["appVersion"], *images} == {VERSION}
