"""The caching proxies of the table, each with the configuration that a careful operator would give it for S3."""

import asyncio
import contextlib
import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from behaviours_origin import BUCKET
from processes import HERE, START_TIMEOUT_S, free_port, listening, nginx_program, program

Proxy = Callable[[Path, int], AbstractAsyncContextManager[int]]
"""Folder and the origin's port -> the port of a running proxy."""

# All settings but the mounts are defaults. A mount enables the features that a row needs.
_BUCKETFRONT = """\
server: {{host: 127.0.0.1, port: 0, timing: true}}
admin: {{host: 127.0.0.1, port: 0}}
origin:
  endpoint_url: http://127.0.0.1:{origin}
  addressing_style: path
  credentials: {{access_key_id: x, secret_access_key: y}}
mounts:
  - {{path: /, bucket: {bucket}, methods: [GET, HEAD, PUT, DELETE], versions: true}}
  - {{path: /overrides/, bucket: {bucket}, prefix: overrides/, response_overrides: true}}
  - path: /site/
    bucket: {bucket}
    prefix: site/
    precompressed: [br, gzip]
    site: {{try_extensions: [.html], errors: {{404: 404.html}}}}
cache: {{dir: {folder}/cache, max_size: 20GiB, min_free: 0}}
access_log: {{format: json, path: {folder}/access.log}}
"""


@contextlib.asynccontextmanager
async def bucketfront(folder: Path, origin: int) -> AsyncGenerator[int, None]:
    """Run `bucketfront serve` from this file's checkout. Raises RuntimeError."""
    config, log = folder / "proxy.yaml", folder / "stderr.log"
    config.write_text(_BUCKETFRONT.format(origin=origin, folder=folder, bucket=BUCKET))
    # With -m the working directory comes first in the import path, so the checkout wins over an installed package.
    arguments = (sys.executable, "-m", "bucketfront.cli", "serve", "-c", config)
    async with program(*arguments, cwd=HERE.parent, log=log) as process:
        async with asyncio.timeout(START_TIMEOUT_S):
            while (found := re.search(r"clients\s+http://[^:]+:(\d+)", log.read_text())) is None:
                if process.returncode is not None:
                    raise RuntimeError(f"bucketfront did not start: {log.read_text()}")
                await asyncio.sleep(0.02)
        yield int(found[1])
        if "Traceback" in log.read_text():
            print(f"\nbucketfront complained: {log.read_text()[:4000]}", file=sys.stderr)
        if process.returncode is not None:
            raise RuntimeError(f"bucketfront ended with {process.returncode}: {log.read_text()[-2000:]}")


_NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 1;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  scgi_temp_path {folder}/scgi;
  uwsgi_temp_path {folder}/uwsgi;
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=cache:10m max_size=20g inactive=1h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://origin/{bucket}/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache cache;
      proxy_cache_valid 200 206 5m;
      proxy_cache_valid 404 10s;
      proxy_cache_revalidate on;
      proxy_cache_lock on;
      proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
      proxy_cache_background_update {background};
      add_header X-Cache $upstream_cache_status always;
      {slices}
    }}
  }}
}}
"""
# $slice_range is empty in background requests, so their bytes get another cache key.
_SLICES = "slice 1m; proxy_set_header Range $slice_range; proxy_cache_key $uri$is_args$args$slice_range;"


def nginx(*, slices: bool) -> Proxy:
    """Run nginx. `slices` adds `slice 1m`."""

    @contextlib.asynccontextmanager
    async def run(folder: Path, origin: int) -> AsyncGenerator[int, None]:
        executable = nginx_program()
        assert executable is not None
        port, config = free_port(), folder / "nginx.conf"
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        config.write_text(
            _NGINX.format(
                folder=folder,
                origin=origin,
                port=port,
                bucket=BUCKET,
                user=user,
                slices=_SLICES if slices else "",
                background="off" if slices else "on",
            )
        )
        arguments = (executable, "-p", folder, "-c", config)
        async with listening("nginx", port, *arguments, folder=folder):
            yield port

    return run


_VARNISH = """\
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_backend_fetch {{ set bereq.url = "/{bucket}" + bereq.url; }}
"""


@contextlib.asynccontextmanager
async def varnish(folder: Path, origin: int) -> AsyncGenerator[int, None]:
    """Run Varnish with its built-in VCL, except for the bucket in front of the path."""
    executable = varnish_program()
    assert executable is not None
    port, config = free_port(), folder / "default.vcl"
    config.write_text(_VARNISH.format(origin=origin, bucket=BUCKET))
    arguments = (executable, "-F", "-j", "none", "-n", folder / "state", "-f", config, "-a", f"127.0.0.1:{port}")
    async with listening("varnishd", port, *arguments, "-s", "malloc,2g", folder=folder):
        yield port


def varnish_program() -> str | None:
    """Return Varnish's program, None if it is not installed."""
    return shutil.which("varnishd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def version(executable: str | None, flag: str) -> str | None:
    """Return the version as in `1.22.1`, None if there is no such program."""
    if executable is None:
        return None
    done = subprocess.run([executable, flag], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+\.\d+", done.stderr + done.stdout)
    return found[0] if found else "unknown"


PROXIES: dict[str, Proxy] = {
    "bucketfront": bucketfront,
    "nginx": nginx(slices=False),
    "nginx, slice 1m": nginx(slices=True),
    "Varnish": varnish,
}
