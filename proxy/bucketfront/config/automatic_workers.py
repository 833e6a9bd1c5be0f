"""How many processes serve hits with `server.workers: auto`.

The machine decides: the cores that this process may use, by its affinity and by the quota of its control groups, and
the memory that these groups permit. See sched_setaffinity(2), and cgroups(7) with its `cpu.max` and `memory.max`
(version 2), and `cpu.cfs_quota_us` and `memory.limit_in_bytes` (version 1).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MAX_AUTOMATIC_WORKERS = 8  # hits of more than that are the traffic of a whole machine, which one configures
MEMORY_BYTES_PER_WORKER = 256 << 20  # of a limit: the owner, its bodies in memory, and the page cache need most of it

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def automatic_workers(folder: Path = _CONTROL_GROUPS, own: Path = _OWN_GROUPS) -> int:
    """Return the number of processes, at least 1. `own` names the groups of this process below `folder`.

    It is 1 on systems whose kernel lacks what several processes need.
    """
    if sys.platform != "linux" or not _has_process_descriptors():
        return 1
    cores = map(int, _quotas(folder, own))
    by_memory = (limit // MEMORY_BYTES_PER_WORKER for limit in _memory_limits(folder, own))
    return max(1, min(MAX_AUTOMATIC_WORKERS, len(os.sched_getaffinity(0)), *cores, *by_memory))


def _has_process_descriptors() -> bool:
    """Return whether pidfd_open(2) works, which sandboxes may lack."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _quotas(folder: Path, own: Path) -> Iterator[float]:
    """Yield the quota of each group, and of those above it, in cores."""
    for group in _groups(folder, own, "cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):  # no quota is "max", or -1
            yield int(quota) / int(period)


def _memory_limits(folder: Path, own: Path) -> Iterator[int]:
    """Yield the limit of each group, and of those above it, in bytes."""
    for group in _groups(folder, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(ValueError):  # there is no such file, or it is "max"
                yield int(_text(group / name))


def _groups(folder: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the group of this process that has a controller, and those above it."""
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = folder / controllers if controllers else folder
        group = top / path.lstrip("/")
        # In a container the path may be that of the host, while the group of the container is at the top.
        for one in {group, *group.parents, top}:
            if one.is_relative_to(folder):
                yield one


def _text(file: Path) -> str:
    """Return the text of a file, and nothing if it cannot be read, because then it sets no limit here."""
    try:
        return file.read_text()
    except OSError:
        return ""
