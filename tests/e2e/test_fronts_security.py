"""Requests that a front and bucketfront may read differently, sent through the front (I24)."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
from attack_heads import HIDDEN_CLIENT, framed
from bucketfront_process import Running, bucketfront
from case import Case
from certificates import localhost_certificate
from edge_servers import running
from edge_site import until
from fakes import object_bytes
from programs import installed, run
from site_under_test import Origin, Site
from stopwatch import HANG_S
from wire import connected

FRONTS = ("nginx", "HAProxy", "Varnish")
ATTACKS = 800  # through each front
AT_ONCE = 8
OBJECTS = 16
ANSWER_S = 0.5  # for which the client waits for a response to an attack; most have one at once
CLIENT = "127.0.0.2"  # where attackers and honest clients connect from; the fronts connect from 127.0.0.1
# Fronts name their client in X-Forwarded-For. So a hidden request that no front sent on has another one.
TRUSTED = "server: {port: 0, trusted_proxies: [127.0.0.1]}"


@contextlib.contextmanager
def site_behind_fronts(origin: Origin, folder: Path) -> Iterator[Site]:
    settings = origin.configuration(folder).replace("server: {port: 0}", TRUSTED)
    with bucketfront(settings, folder) as started:
        yield Site(origin, started, "fronts")


@pytest.fixture(scope="module")
def site_of_all(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("bucketfront")
    with site_behind_fronts(origin, folder) as site:
        yield site
        assert "Traceback" not in site.running.printed(), site.running.printed()


@pytest.fixture(scope="module")
def objects(site_of_all: Site) -> Mapping[str, bytes]:
    """Return the paths of objects that honest clients read, and their bytes."""
    found = {f"honest-{number}": object_bytes(900 + number) for number in range(OBJECTS)}
    for name, data in found.items():
        site_of_all.store(name, data, CacheControl="max-age=3600")
    return {f"/{site_of_all.folder}/{name}": data for name, data in found.items()}


def access_log(running: Running) -> str:
    return (running.log.parent / "access.log").read_text()


def clients_in(running: Running) -> list[str]:
    return [json.loads(line)["client"] for line in access_log(running).splitlines()]


async def attacked(front: str, data: bytes) -> bool:
    """Send an attack, and return whether there was a response. The connection is closed whatever follows."""
    async with connected(front, local=CLIENT) as client:
        with contextlib.suppress(ConnectionError, TimeoutError):
            await client.send(data)
            async with asyncio.timeout(ANSWER_S):
                return await client.reader.read(1 << 16) != b""
    return False


async def besiege(front: str, objects: Mapping[str, bytes], seed: int) -> int:
    """Send the attacks, each before an honest read, and return how many were answered.

    The query makes each read of its own to the cache of the front, so that it goes on to bucketfront.
    """
    numbers = count(1)
    paths = sorted(objects)

    async def send_all() -> int:
        answered = 0
        while (number := next(numbers)) <= ATTACKS:
            attack = framed(random.Random(seed << 32 | number), number)
            answered += await attacked(front, attack.data)
            path = paths[number % len(paths)]
            async with asyncio.timeout(HANG_S), connected(front, local=CLIENT) as client:
                response = await client.request("GET", f"{path}?n={number}")
            told = f"seed {seed}, attack {number}: {attack.data!r}"
            assert (response.status, response.body) == (200, objects[path]), told
        return answered

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(send_all()) for _ in range(AT_ONCE)]
    return sum(task.result() for task in tasks)


@pytest.mark.parametrize("name", FRONTS)
async def test_smuggling(
    name: str,
    site_of_all: Site,
    objects: Mapping[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    case: Case,
    trial: Callable[..., None],
) -> None:
    """Bucketfront never takes a part of a message for a request, and others get their own bytes (I24)."""
    folder = tmp_path_factory.mktemp("front")
    certificate = localhost_certificate(folder)
    seed = FRONTS.index(name) + 1
    with running(name, site_of_all.running.url, folder, certificate) as front:
        case.of(front.program, f"{ATTACKS} requests of unclear framing, each before an honest read")
        answered = await besiege(front.url, objects, seed)
    assert answered > ATTACKS // 4
    site_of_all.send("GET", f"end-{name}")  # lines are in the order of requests, so all others are there with its own
    until(lambda: f"/end-{name}" in access_log(site_of_all.running), "the last line")
    assert HIDDEN_CLIENT not in clients_in(site_of_all.running)
    seen = f"{answered} answered; no hidden request in bucketfront's log; {ATTACKS} honest reads got their bytes"
    trial("smuggling", f"through {name} {front.program.version}", ATTACKS, seen)


async def test_a_hidden_request_would_be_seen(origin: Origin, tmp_path: Path) -> None:
    """Without a front, the hidden request's client is in the log, or the tests above would prove nothing."""
    with site_behind_fronts(origin, tmp_path) as site:
        async with connected(site.running.url) as client:
            await client.request("GET", "/hidden-0", {"X-Forwarded-For": HIDDEN_CLIENT})
        until(lambda: HIDDEN_CLIENT in clients_in(site.running), "the line of the request")


# Directives of nginx that docs/security.md names, and one that it calls a part of the commercial version.
OF_NGINX = {
    "auth_basic x; auth_basic_user_file users;": True,
    "secure_link $arg_md5; secure_link_md5 secret$uri;": True,
    "allow 10.0.0.0/8; deny all;": True,
    "auth_request /may;": True,
    "limit_conn clients 10;": True,
    "limit_req zone=rates;": True,
    "auth_jwt x;": False,
}
NGINX = """
events {{}}
error_log stderr;
pid {folder}/pid;
http {{
  limit_conn_zone $binary_remote_addr zone=clients:1m;
  limit_req_zone $binary_remote_addr zone=rates:1m rate=1r/s;
  server {{
    listen unix:{folder}/socket;
    location / {{ {directive} }}
  }}
}}
"""


def test_access_features_of_nginx(tmp_path: Path, case: Case) -> None:
    """Nginx takes the directives that docs/security.md names, and has none for JSON Web Tokens."""
    program = installed("nginx", version=("-v",))
    case.of(program, "the directives for access that docs/security.md names")
    for directive, is_known in OF_NGINX.items():
        file = tmp_path / "nginx.conf"
        file.write_text(NGINX.format(folder=tmp_path, directive=directive))
        checked = run(program.path, "-t", "-c", file, folder=tmp_path, fails=not is_known)
        assert is_known or "unknown directive" in checked.output


def test_access_features_of_varnish(tmp_path: Path, case: Case) -> None:
    """Varnish has lists of networks."""
    program = installed("varnishd", "varnish", version=("-V",))
    case.of(program, "the lists of networks that docs/security.md names")
    file = tmp_path / "access.vcl"
    networks = 'acl lan { "10.0.0.0"/8; } sub vcl_recv { if (client.ip !~ lan) { return (synth(403)); } }'
    file.write_text(f'vcl 4.1; backend default {{ .host = "127.0.0.1"; }} {networks}')
    run(program.path, "-j", "none", "-C", "-f", file, "-n", tmp_path / "state", folder=tmp_path)
