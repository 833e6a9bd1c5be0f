"""Which boot of the machine this is: what was written in another one may have been lost with its power (I14)."""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # proc(5); a container has its host's


def boot_id() -> int:
    """63 bits, another number after each boot; 0 where the kernel does not tell."""
    try:
        return int(_BOOT_ID.read_text().replace("-", ""), 16) >> 65
    except (OSError, ValueError):
        return 0
