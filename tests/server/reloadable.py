"""A proxy whose configuration is a file that the test changes."""

import json
from pathlib import Path
from typing import Any

from proxy_under_test import BLOCK, PART, WORKERS, Proxy
from wire import Response

from bucketfront.admin.reloader import ReloadOutcome, ReloadVerdict


class ConfigFile:
    """A configuration as JSON, which is YAML as well."""

    def __init__(self, folder: Path, endpoint: str, bucket: str) -> None:
        self.path = folder / "proxy.yaml"
        self.tree: dict[str, Any] = {
            "server": {"port": 0, "workers": WORKERS},
            "admin": {"port": 0},
            "origin": {
                "endpoint_url": endpoint,
                "addressing_style": "path",
                "credentials": {"access_key_id": "any", "secret_access_key": "any"},
                "part_size": PART,
            },
            "mounts": [{"path": "/", "bucket": bucket}],
            "cache": {"dir": str(folder / "cache"), "block_size": BLOCK, "max_size": "64MiB", "min_free": 0},
            "access_log": {"path": str(folder / "access.log")},
        }
        self.write()

    def write(self, **sections: Any) -> None:
        """Write the file. A dict of `sections` adds keys to its section, and any other value replaces it."""
        for name, section in sections.items():
            both = isinstance(section, dict) and name in self.tree
            self.tree[name] = {**self.tree[name], **section} if both else section
        written = self.path.with_suffix(".new")
        written.touch(mode=0o600)
        written.write_text(json.dumps(self.tree, indent=1))
        written.replace(self.path)  # a reload that runs reads either file

    @property
    def mount(self) -> dict[str, Any]:
        """Return the first mount, to be changed."""
        found: dict[str, Any] = self.tree["mounts"][0]
        return found


class Site:
    def __init__(self, proxy: Proxy, config: ConfigFile) -> None:
        self.proxy = proxy
        self.config = config

    async def reload(self, **sections: Any) -> ReloadOutcome:
        """Change the file, and reload. Raises AssertionError if the reload does not apply."""
        outcome = await self.refused(**sections)
        assert outcome.verdict is ReloadVerdict.RELOADED, outcome
        return outcome

    async def refused(self, **sections: Any) -> ReloadOutcome:
        self.config.write(**sections)
        return await self.proxy.app.reload("test")

    async def hit(self, target: str, **headers: str) -> Response:
        """Send GETs until the fast path serves one. Return that response."""
        served = self.proxy.app.fast_path.served
        for _ in range(100):
            response = await self.proxy.get(target, **headers)
            await self.proxy.settled()
            if self.proxy.app.fast_path.served != served:
                return response
        raise AssertionError(f"the fast path does not serve {target}")
