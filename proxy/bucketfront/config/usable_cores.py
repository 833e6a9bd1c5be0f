"""How many cores this process may use: by its affinity, and by the processor quota of its control groups.

See sched_setaffinity(2), and cgroups(7) with its `cpu.max` (version 2) and `cpu.cfs_quota_us` (version 1).
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cores(folder: Path = _CONTROL_GROUPS, own: Path = _OWN_GROUPS) -> int:
    """Return the number of whole cores, at least 1. `own` names the groups of this process below `folder`."""
    if sys.platform != "linux":
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), *map(int, _quotas(folder, own)), sys.maxsize))


def _quotas(folder: Path, own: Path) -> Iterator[float]:
    """Yield the quota of each group, and of those above it, in cores."""
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = folder / controllers if controllers else folder
        group = top / path.lstrip("/")
        # In a container the path may be that of the host, while the group of the container is at the top.
        for one in {group, *group.parents, top}:
            if one.is_relative_to(folder):
                yield from _quota(one)


def _quota(group: Path) -> Iterator[float]:
    quota, _, period = _text(group / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period):  # no quota is "max", or -1
        yield int(quota) / int(period)


def _text(file: Path) -> str:
    """Return the text of a file, and nothing if it cannot be read, because then it sets no limit here."""
    try:
        return file.read_text()
    except OSError:
        return ""
