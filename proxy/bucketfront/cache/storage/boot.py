"""The boot of the machine. A loss of power may undo writes of an earlier one (docs/invariants.md#crash-only)."""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # proc(5); a container has the one of its host


def boot_id() -> int:
    """Return 63 bits that differ after each boot. Returns 0 if the kernel has no boot id."""
    try:
        return int(_BOOT_ID.read_text().replace("-", ""), 16) >> 65
    except (OSError, ValueError):
        return 0
