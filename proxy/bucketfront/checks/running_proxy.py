"""Find out whether the process that uses a cache folder is the proxy that runs with the same configuration file."""

import os
from pathlib import Path


def runs_with(process: int, config: Path) -> bool:
    """Return whether the process was started as `serve` with this file. Returns False if that cannot be found out."""
    proc = Path("/proc", str(process))  # proc(5)
    try:
        words = [os.fsdecode(word) for word in (proc / "cmdline").read_bytes().split(b"\0")]
        # A process of another user hides its working directory. Then only an absolute path can be compared.
        folder = Path(os.readlink(proc / "cwd")) if os.access(proc / "cwd", os.R_OK) else Path("/")  # noqa: PTH115 - a deleted folder has no path to resolve
        wanted = config.resolve()
        return "serve" in words and any((folder / _value(word)).resolve() == wanted for word in words if word)
    except (OSError, ValueError):
        return False


def _value(word: str) -> str:
    """Return the value of an argument: `--config=a.yaml` and `-ca.yaml` have it in the same word as the option."""
    if word.startswith("--"):
        return word.partition("=")[2] or word
    return word[2:] if word.startswith("-c") and len(word) > 2 else word
