"""`bucketfront serve` as a process of its own, for tests that run programs against it."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 60.0  # seconds for a start, with other work on the machine
POLL_S = 0.05

_READY = re.compile(r"^  clients +(http\S+)(?s:.*?)^  admin +(http\S+)", re.MULTILINE)
# The command, without hedges: on a busy machine they add requests and bytes to those that tests count.
_SERVE = """
import sys
from bucketfront.cache.fetch import body_stream
from bucketfront.cli import main
body_stream.HEDGE_AFTER_S = 600.0
main(sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A running bucketfront. `url` and `admin_url` have no slash at the end."""

    url: str
    admin_url: str
    pid: int
    log: Path  # what it prints

    def printed(self) -> str:
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def bucketfront(config: str, folder: Path) -> Iterator[Running]:
    """Run it with the text of a `proxy.yaml` until the end of the block, which ends it with SIGTERM.

    The configuration and what it prints are files of `folder`. Raises RuntimeError with what it printed.
    """
    file, log = folder / "proxy.yaml", folder / "stderr"
    file.write_text(config)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BUCKETFRONT_", "AWS_"))}
    command = [sys.executable, "-c", _SERVE, "serve", "-c", str(file)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (found := _READY.search(log.read_text(errors="replace"))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"bucketfront did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(POLL_S)
        yield Running(found[1].rstrip("/"), found[2].rstrip("/"), process.pid, log)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(START_TIMEOUT_S)
        process.kill()
        process.wait()
