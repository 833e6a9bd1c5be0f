"""Find out whether the process that uses a cache folder is the proxy that runs with the same configuration file."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_OPTIONS = ("-c", "--config")
_VARIABLE = b"BUCKETFRONT_CONFIG="
_DEFAULT = "proxy.yaml"


def runs_with(process: int, config: Path) -> bool:
    """Return whether the process was started as `serve` with this file. Returns False if that cannot be found out."""
    proc = Path("/proc", str(process))  # proc(5)
    try:
        words = [os.fsdecode(word) for word in (proc / "cmdline").read_bytes().split(b"\0")]
        if "serve" not in words:
            return False
        # A process of another user hides its working directory. Then only an absolute path can be compared.
        folder = Path("/")
        with suppress(PermissionError):
            folder = (proc / "cwd").readlink()
        return (folder / _file_of(words, proc)).resolve() == config.resolve()
    except (OSError, ValueError):
        return False


def _file_of(words: Sequence[str], proc: Path) -> str:
    """Return the configuration file of a command, or of the process's environment, or the default one."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in _OPTIONS:
            return following
        if word.startswith("--config="):
            return word.partition("=")[2]
        if word.startswith("-c") and len(word) > 2:
            return word[2:]
    with suppress(PermissionError):
        for variable in (proc / "environ").read_bytes().split(b"\0"):
            if variable.startswith(_VARIABLE):
                return os.fsdecode(variable.removeprefix(_VARIABLE))
    return _DEFAULT
