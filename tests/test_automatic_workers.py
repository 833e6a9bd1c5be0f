"""`server.workers: auto` follows the cores and the memory that the process may use, also in a container or a unit."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bucketfront.config import settings as module
from bucketfront.config.automatic_workers import automatic_workers
from bucketfront.config.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="affinity and control groups are Linux's")

MIB = 1 << 20
FILES = {
    "max": "cpu.max", "quota": "cpu.cfs_quota_us", "period": "cpu.cfs_period_us",
    "memory": "memory.max", "limit": "memory.limit_in_bytes",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def workers(folder: Path, own: str, **limits: str) -> int:
    """Return the workers of a process in the groups `own`, with files of control groups by name (`__` for a folder)."""
    for name, text in limits.items():
        *parts, file = name.split("__")
        group = folder.joinpath("groups", *parts)
        group.mkdir(parents=True, exist_ok=True)
        (group / FILES[file]).write_text(text)
    (folder / "own").write_text(own)
    return automatic_workers(folder / "groups", folder / "own")


def settings(**sections: Any) -> Settings:
    return Settings.model_validate({"mounts": [{"path": "/", "bucket": "b"}], **sections})


def test_it_is_the_default() -> None:
    """Without the setting there are as many workers as the machine permits, and one is the owner itself."""
    assert settings().server.workers == "auto"
    expected = automatic_workers()
    assert settings().front_ends == (0 if expected == 1 else expected)
    assert settings(server={"workers": 1}).front_ends == 0
    assert settings(server={"workers": 2}).front_ends == 2


def test_without_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Front ends would serve nothing, so there are none, unless their number is configured."""
    monkeypatch.setattr(module, "automatic_workers", lambda: 8)
    assert settings().front_ends == 8
    for sections in ({"server": {"fast_path": False}}, {"server": {"timing": True}}, {"cache": {"mode": "observe"}}):
        assert settings(**sections).front_ends == 0
    assert settings(server={"fast_path": False, "workers": 2}).front_ends == 2


def test_without_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The affinity decides, also where there are no control groups, up to 8."""
    assert workers(tmp_path, "0::/unit\n", unit__max="max 100000\n", unit__memory="max\n") == 8
    assert automatic_workers(tmp_path / "none", tmp_path / "absent") == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert automatic_workers(tmp_path / "none", tmp_path / "absent") == 8


def test_a_quota(tmp_path: Path) -> None:
    """The lowest quota decides, of the group or of one above it, in whole cores and at least one."""
    assert workers(tmp_path, "0::/slice/unit\n", slice__unit__max="350000 100000\n") == 3
    assert workers(tmp_path, "0::/slice/unit\n", slice__max="200000 100000\n") == 2
    assert workers(tmp_path, "0::/slice/unit\n", slice__max="50000 100000\n") == 1


def test_a_limit_of_memory(tmp_path: Path) -> None:
    """Each 256 MiB of the lowest limit permit one worker, so that a small container is not killed for them."""
    own = "0::/slice/unit\n"
    assert workers(tmp_path, own, slice__unit__memory=f"{1024 * MIB}\n") == 4
    assert workers(tmp_path, own, slice__unit__max="300000 100000\n") == 3
    assert workers(tmp_path, own, slice__memory=f"{600 * MIB}\n") == 2
    assert workers(tmp_path, own, slice__memory=f"{100 * MIB}\n") == 1


def test_in_a_container(tmp_path: Path) -> None:
    """The limits of a container count, which sees its own group at the top."""
    assert workers(tmp_path, "0::/\n", max="400000 100000\n") == 4
    assert workers(tmp_path, "0::/../host/path\n", max="200000 100000\n") == 2
    assert workers(tmp_path, "0::/\n", memory=f"{256 * MIB}\n") == 1


def test_version_1(tmp_path: Path) -> None:
    """Groups of version 1 have their quota in two files, and -1 stands for none. Their memory is another group."""
    own = "5:cpu,cpuacct:/unit\n4:memory:/other\n"
    both = {"cpu,cpuacct__unit__quota": "150000\n", "cpu,cpuacct__unit__period": "50000\n"}
    assert workers(tmp_path, own, **both) == 3
    none = {**both, "cpu,cpuacct__unit__quota": "-1\n"}
    assert workers(tmp_path, own, **none) == 8
    assert workers(tmp_path, own, memory__other__limit="9223372036854771712\n") == 8
    assert workers(tmp_path, own, memory__other__limit=f"{512 * MIB}\n") == 2


def test_a_kernel_without_process_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pidfd_open(2) is missing, one process serves, and the start does not fail."""

    def missing(_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    assert automatic_workers(tmp_path / "none", tmp_path / "absent") == 1
