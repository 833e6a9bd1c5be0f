"""The caches that the HTTP cache test suite runs against, each configured to cache only what a response permits."""

import asyncio
import contextlib
import getpass
import os
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from held_port import held_port
from proxy_process import FreshStarts

BUCKET = "cache-tests"
START_TIMEOUT_S = 60.0
POLL_S = 0.05

Cache = Callable[[Path, int], AbstractAsyncContextManager[str]]
"""A folder of its own and the port of S3 -> the URL of the running cache."""

# Strict: an object is fresh only for as long as it declares itself, and then it is not served without a revalidation.
BUCKETFRONT = """\
server: {{port: 0}}
admin: {{port: 0}}
origin:
  endpoint_url: http://127.0.0.1:{origin}
  addressing_style: path
  credentials: {{access_key_id: any, secret_access_key: any}}
mounts:
  - {{path: /, bucket: {bucket}, methods: [GET, HEAD, PUT, DELETE]}}
freshness:
  default_ttl: 0
  negative_ttl: 0
  stale_while_revalidate: 0
  stale_if_error: 0
  honor_client_no_cache: true
  media_rules: false
cache: {{dir: {folder}/cache, min_free: 0}}
access_log: {{path: {folder}/access.log}}
"""

NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 1;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  scgi_temp_path {folder}/scgi;
  uwsgi_temp_path {folder}/uwsgi;
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=cache:10m inactive=1h use_temp_path=off;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{origin}/{bucket}/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache cache;
      proxy_cache_revalidate on;
    }}
  }}
}}
"""

VARNISH = """\
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_backend_fetch {{ set bereq.url = "/{bucket}" + bereq.url; }}
"""


@contextlib.asynccontextmanager
async def bucketfront(folder: Path, origin: int) -> AsyncGenerator[str, None]:
    config = folder / "proxy.yaml"
    config.write_text(BUCKETFRONT.format(origin=origin, bucket=BUCKET, folder=folder))
    starter = FreshStarts()
    await starter.begin(config)
    try:
        yield (await starter.ready()).address
    finally:
        await starter.kill()


@contextlib.asynccontextmanager
async def nginx(folder: Path, origin: int) -> AsyncGenerator[str, None]:
    config = folder / "nginx.conf"
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    with held_port() as port:
        config.write_text(NGINX.format(folder=folder, user=user, port=port, origin=origin, bucket=BUCKET))
        async with _running(port, folder, str(program("nginx")), "-p", str(folder), "-c", str(config)) as url:
            yield url


@contextlib.asynccontextmanager
async def varnish(folder: Path, origin: int) -> AsyncGenerator[str, None]:
    config = folder / "default.vcl"
    config.write_text(VARNISH.format(origin=origin, bucket=BUCKET))
    options = ("-F", "-j", "none", "-n", str(folder / "state"), "-f", str(config), "-s", "malloc,100m")
    strict = ("-p", "default_ttl=0", "-p", "default_grace=0", "-p", "default_keep=600")
    with held_port() as port:
        command = (str(program("varnishd")), *options, *strict, "-a", f"127.0.0.1:{port}")
        async with _running(port, folder, *command) as url:
            yield url


def program(name: str) -> str | None:
    """Return the path of a server, None if it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def version(name: str, flag: str) -> str | None:
    """Return the version of a server as in `1.22.1`, None if it is not installed."""
    found = program(name)
    if found is None:
        return None
    done = subprocess.run([found, flag], capture_output=True, text=True, check=True)
    number = re.search(r"\d+\.\d+\.\d+", done.stderr + done.stdout)
    return number[0] if number else "unknown"


@contextlib.asynccontextmanager
async def _running(port: int, folder: Path, *command: str) -> AsyncGenerator[str, None]:
    """Run a server until the end, and wait until its port is open. Raises RuntimeError."""
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await _is_open(port):
                if process.returncode is not None:
                    raise RuntimeError(f"{command[0]} did not start: {(folder / 'output').read_text()[-2000:]}")
                await asyncio.sleep(POLL_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


CACHES: dict[str, Cache] = {"bucketfront": bucketfront, "nginx": nginx, "Varnish": varnish}
