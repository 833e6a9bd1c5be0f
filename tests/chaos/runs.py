"""The configuration and the seed of long runs of a proxy process."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from origin_process import OriginProcess

MAX_SIZE_BYTES = 7 << 20  # bytes of the cache; the log of the index alone takes up to 4 MiB of them


def configuration(folder: Path, origin: OriginProcess, /, **sections: Mapping[str, object]) -> Path:
    """Write a configuration with small blocks and parts and too little space for `workload.py`, so that evictions are
    frequent.

    `sections` are merged in.
    """
    path = folder / "proxy.yaml"
    settings: dict[str, Any] = {
        "server": {"port": 0, "workers": 1},
        "admin": {"port": 0},
        "origin": {
            "endpoint_url": origin.endpoint_url,
            "addressing_style": "path",
            "credentials": {"access_key_id": "any", "secret_access_key": "any"},
            "part_size": "256KiB",
        },
        "mounts": [{"path": "/", "bucket": origin.bucket, "methods": ["GET", "HEAD", "PUT", "DELETE"]}],
        "cache": {"dir": str(folder / "cache"), "block_size": "64KiB", "max_size": MAX_SIZE_BYTES, "min_free": 0},
        "access_log": {"path": str(folder / "access.log")},
    }
    for name, section in sections.items():
        settings[name] = {**settings.get(name, {}), **section}
    path.write_text(json.dumps(settings))
    return path


def seed() -> int:
    """Return a seed and print it for a failure's report. CHAOS_SEED repeats the requests of that run."""
    chosen = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1 << 32))
    print(f"CHAOS_SEED={chosen}")  # noqa: T201 - pytest shows it with a failure
    return chosen
