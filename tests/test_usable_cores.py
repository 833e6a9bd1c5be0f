"""`server.workers: auto` follows the cores that the process may use, also if a container or a unit has a quota."""

import os
import sys
from pathlib import Path

import pytest

from bucketfront.config.usable_cores import usable_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="affinity and control groups are Linux's")


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def cores(folder: Path, own: str, **quotas: str) -> int:
    """Return the cores of a process in the groups `own`, with files of control groups by name (`__` for a folder)."""
    for name, text in quotas.items():
        *parts, file = name.split("__")
        file = {"max": "cpu.max", "quota": "cpu.cfs_quota_us", "period": "cpu.cfs_period_us"}[file]
        group = folder.joinpath("groups", *parts)
        group.mkdir(parents=True, exist_ok=True)
        (group / file).write_text(text)
    (folder / "own").write_text(own)
    return usable_cores(folder / "groups", folder / "own")


def test_without_a_quota(tmp_path: Path) -> None:
    """The affinity decides, also where there are no control groups."""
    assert cores(tmp_path, "0::/unit\n", unit__max="max 100000\n") == 8
    assert usable_cores(tmp_path / "none", tmp_path / "absent") == 8


def test_a_quota(tmp_path: Path) -> None:
    """The lowest quota decides, of the group or of one above it, in whole cores and at least one."""
    assert cores(tmp_path, "0::/slice/unit\n", slice__unit__max="350000 100000\n") == 3
    assert cores(tmp_path, "0::/slice/unit\n", slice__max="200000 100000\n") == 2
    assert cores(tmp_path, "0::/slice/unit\n", slice__max="50000 100000\n") == 1


def test_in_a_container(tmp_path: Path) -> None:
    """The quota of a container counts, which sees its own group at the top."""
    assert cores(tmp_path, "0::/\n", max="400000 100000\n") == 4
    assert cores(tmp_path, "0::/../host/path\n", max="200000 100000\n") == 2


def test_version_1(tmp_path: Path) -> None:
    """Groups of version 1 have their quota in two files, and -1 stands for none."""
    own = "5:cpu,cpuacct:/unit\n4:memory:/other\n"
    both = {"cpu,cpuacct__unit__quota": "150000\n", "cpu,cpuacct__unit__period": "50000\n"}
    assert cores(tmp_path, own, **both) == 3
    assert cores(tmp_path, own, **{**both, "cpu,cpuacct__unit__quota": "-1\n"}) == 8
