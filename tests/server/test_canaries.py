"""No secret leaves bucketfront: not in logs at any level, metrics, pages, the command line or its messages (I28)."""

import asyncio
import base64
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import bcrypt
import pytest
import yaml
from stopwatch import HANG_S
from wire import fetch

from bucketfront.server.access.signed_url import Permission, signed_cookie, signed_url

CHILD = Path(__file__).with_name("canary_process.py")
SETTINGS = {
    name: f"canary-{name}-0123456789abcdef"
    for name in ("s3-secret", "s3-session", "admin", "token", "spare", "sign", "password", "tls-key")
}
"""The secrets of the configuration, by what they are."""
SENT = {
    name: f"canary-{name}-fedcba9876543210"
    for name in ("bearer", "basic", "jwt", "cookie", "presigned", "session", "signature", "admin-guess", "proxy")
}
"""The secrets of clients."""


class Origin:
    """An S3 whose failures repeat what bucketfront sent, as the XML of SignatureDoesNotMatch does."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            writer.write(self._response(head))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _response(self, head: bytes) -> bytes:
        echo = re.sub(rb"[<&]", b"_", head)
        if b"/gibberish" in head.split(b"\r\n")[0]:
            return b"HTTP/1.1 nonsense " + echo.replace(b"\r\n", b" ") + b"\r\n\r\n"
        if b"/field" in head.split(b"\r\n")[0]:
            return b"HTTP/1.1 200 OK\r\nno-colon " + echo.replace(b"\r\n", b" ") + b"\r\n\r\n"
        if b"/fine" in head.split(b"\r\n")[0]:
            fields = b'ETag: "5d41402abc4b2a76b9719d911017c592"\r\nContent-Length: 5\r\nConnection: close\r\n\r\n'
            body = b"" if head.startswith(b"HEAD") else b"hello"
            return b"HTTP/1.1 200 OK\r\n" + fields + body
        status = b"500 Oops" if b"/broken" in head.split(b"\r\n")[0] else b"403 Forbidden"
        code = b"InternalError" if status.startswith(b"500") else b"SignatureDoesNotMatch"
        body = b"<Error><Code>%s</Code><Message>%s</Message><StringToSign>%s</StringToSign></Error>"
        body %= (code, echo, echo)
        return b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
            status, len(body), b"" if head.startswith(b"HEAD") else body,
        )  # fmt: skip


@asynccontextmanager
async def served(origin: Origin) -> AsyncIterator[str]:
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def configuration(folder: Path, endpoint: str) -> Path:
    """Write a configuration with every secret setting, most of them in the file itself. Returns its path."""
    hashed = bcrypt.hashpw(SETTINGS["password"].encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"ann:{hashed}\n")
    (folder / "spare").write_text(SETTINGS["spare"])
    rules = {"t": "team", "b": "staff", "s": "links", "f": "app", "j": "users"}
    folders = [{"path": f"/{at}/", "bucket": "media", "prefix": f"{at}/", "read": [rule]} for at, rule in rules.items()]
    settings = {
        "server": {"port": 0, "workers": 1},
        "admin": {"port": 0, "token": SETTINGS["admin"]},
        "origin": {
            "endpoint_url": endpoint, "addressing_style": "path", "connect_timeout": "5s", "read_timeout": "5s",
            "credentials": {
                "access_key_id": "id", "secret_access_key": SETTINGS["s3-secret"],
                "session_token": SETTINGS["s3-session"],
            },
        },
        "access": {
            "team": {"bearer": {"tokens": [SETTINGS["token"], f"file:{folder}/spare"]}},
            "staff": {"basic": {"file": str(folder / "htpasswd")}},
            "links": {"signed_url": {"keys": {"k1": SETTINGS["sign"]}, "cookies": True}},
            "app": {"forward": {"url": f"{endpoint}/forward/gibberish", "timeout": "5s"}},
            "users": {"jwt": {"jwks": f"{endpoint}/jwks/gibberish", "issuer": "i", "audience": "a"}},
        },
        "mounts": [
            {"path": "/", "bucket": "media", "methods": ["GET", "PUT", "DELETE"]},
            *folders,
        ],
        "cache": {"dir": str(folder / "cache"), "max_size": "64MiB", "min_free": 0},
        "access_log": {"path": str(folder / "access.log")},
    }  # fmt: skip
    path = folder / "proxy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


async def run(*arguments: str) -> tuple[int, str]:
    """Run a command of bucketfront to its end. Returns its status and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(HANG_S):
            printed, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, printed.decode()


def requests() -> list[tuple[str, str, dict[str, str]]]:
    """Return requests with secrets to each rule and through each kind of failure: method, target and fields."""
    basic = base64.b64encode(f"ann:{SENT['basic']}".encode()).decode()
    known = base64.b64encode(f"ann:{SETTINGS['password']}".encode()).decode()
    permission = Permission("GET", "/s/fine", int(time.time()) + 600)
    cookie = signed_cookie(Permission("GET", "/s/", int(time.time()) + 600), "k1", SETTINGS["sign"])
    credentials = [
        {"Authorization": f"Bearer {SENT['bearer']}"},
        {"Authorization": f"Bearer {SETTINGS['token']}"},
        {"Authorization": f"Bearer {SETTINGS['spare']}"},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Basic {known}"},
        {"Authorization": f"Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.{SENT['jwt']}.{SENT['signature']}"},
        {"Authorization": f"AWS4-HMAC-SHA256 Credential=x/y, SignedHeaders=host, Signature={SENT['signature']}"},
        {"Cookie": f"session={SENT['cookie']}; bf_access={SENT['signature']}"},
        {"Cookie": f"bf_access={cookie}"},
        {"Proxy-Authorization": SENT["proxy"], "X-Amz-Security-Token": SENT["session"]},
    ]
    query = f"X-Amz-Signature={SENT['presigned']}&X-Amz-Security-Token={SENT['session']}&bf_sig={SENT['signature']}"
    paths = [f"/{folder}{name}" for folder in ("", "t/", "b/", "s/", "f/", "j/") for name in ("fine", "denied")]
    paths += ["/broken", "/gibberish", "/field", "/bug", "/none?X"]
    found = [("GET", path, fields) for path in paths for fields in credentials]
    found += [("GET", f"{path.partition('?')[0]}?{query}", {}) for path in paths]
    found += [("GET", signed_url(permission, "k1", SETTINGS["sign"]), {})]
    found += [(method, f"{path}?{query}", credentials[0]) for method in ("PUT", "DELETE", "POST") for path in paths[:2]]
    found += [("PUT", path, credentials[0]) for path in ("/denied", "/broken", "/gibberish")]
    return found


async def malformed(address: str) -> None:
    """Send heads with secrets that the parser refuses."""
    host, _, port = address.removeprefix("http://").partition(":")
    bearer = SENT["bearer"].encode()
    secret = b"Authorization: Bearer " + bearer + b"\r\nCookie: " + SENT["cookie"].encode()
    for head in (
        b"GET /fine HTTP/1.1\r\nHost: h\r\n" + secret + b"\r\nbroken field\r\n\r\n",
        b"GET /fine?bf_sig=" + SENT["signature"].encode() + b" x HTTP/1.1\r\nHost: h\r\n\r\n",
        b"PUT /fine HTTP/1.1\r\nHost: h\r\n" + secret + b"\r\nContent-Length: x\r\n\r\n",
        b"GET /fine HTTP/1.1\r\nHost: h\r\n"
        + secret
        + b"\r\nAuthorization:\x01"
        + SENT["bearer"].encode()
        + b"\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        async with asyncio.timeout(HANG_S):
            await reader.read()
        writer.close()


def text_of(path: Path) -> str:
    return path.read_text()


def leaks(text: str) -> list[str]:
    """Return the names of the secrets in `text`, as they are or in base64."""
    secrets = {**SETTINGS, **SENT}
    return [
        name
        for name, value in secrets.items()
        if value in text or base64.b64encode(f"ann:{value}".encode()).decode() in text
    ]


@asynccontextmanager
async def serving(config: Path, printed: bytearray) -> AsyncIterator[tuple[int, str, str]]:
    """Run `serve` inside the block. Yields its process id, and the addresses for clients and operators.

    `printed` gets all that it prints.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), "serve", "-v", "-c", str(config),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    reading = None
    try:
        async with asyncio.timeout(HANG_S):
            while b"  origin " not in printed:
                line = await process.stderr.readline()
                assert line, printed.decode()
                printed += line
        reading = asyncio.create_task(process.stderr.read())
        found = dict(re.findall(r"  (clients|admin) +(http://\S+)", printed.decode()))
        yield process.pid, found["clients"].rstrip("/"), found["admin"].rstrip("/")
    finally:
        process.terminate()
        async with asyncio.timeout(HANG_S):
            if reading is not None:
                printed += await reading
            await process.communicate()


async def used(clients: str, admin: str) -> dict[str, str]:
    """Send all requests. Returns what came back, by request."""
    seen = {}
    for method, target, fields in requests():
        body = b"" if method == "PUT" else None
        response = await fetch(clients, target, method=method, headers=fields, body=body)
        seen[f"{method} {target.partition('?')[0]}"] = f"{response.headers} {response.body!r}"
    await malformed(clients)
    pages = ("/metrics", "/readyz", "/healthz", "/api/v1/stats", "/api/v1/config", "/config", "/openapi.json")
    for token in (SETTINGS["admin"], SENT["admin-guess"]):
        for page in pages:
            response = await fetch(admin, page, headers={"Authorization": f"Bearer {token}"})
            seen[f"admin {page} {len(token)}"] = f"{response.headers} {response.body!r}"
    return seen


async def refused(folder: Path, config: Path) -> dict[str, str]:
    """Run commands with configurations that are wrong. Returns what they print."""
    written, seen = text_of(config), {}
    settings = yaml.safe_load(written)
    settings["origin"]["credentials"]["unknown"] = settings["cache"]["max_size"] = SENT["session"]
    (folder / "wrong.yaml").write_text(yaml.safe_dump(settings))
    settings = yaml.safe_load(written)
    key = folder / "key.pem"
    key.write_text(f"-----BEGIN PRIVATE KEY-----\n{SETTINGS['tls-key']}\n-----END PRIVATE KEY-----\n")
    settings["server"]["tls"] = {"certificate": str(key), "key": str(key)}
    (folder / "tls.yaml").write_text(yaml.safe_dump(settings))
    for name in ("wrong.yaml", "tls.yaml"):
        for command in ("serve", "check"):
            status, seen[f"{command} {name}"] = await run(command, "-c", str(folder / name))
            assert status != 0
    return seen


@pytest.mark.long
async def test_no_secret_gets_out(tmp_path: Path) -> None:
    """Through successes, refusals, failures of S3 and of apps, bugs and malformed requests, no secret of settings or
    clients is in what the process prints at DEBUG, its log, its pages, its command line or that of its commands (I28).
    """
    origin, printed = Origin(), bytearray()
    async with served(origin) as endpoint:
        config = configuration(tmp_path, endpoint)
        async with serving(config, printed) as (process, clients, admin):
            seen = await used(clients, admin)
            seen["command line"] = text_of(Path(f"/proc/{process}/cmdline"))
            settings = yaml.safe_load(text_of(config))
            settings["admin"]["port"] = int(admin.rpartition(":")[2])
            same = tmp_path / "same.yaml"
            same.write_text(yaml.safe_dump(settings))
            for line in ("stats", "purge /fine", "check", "check --json", "verify"):
                _, seen[line] = await run(*line.split(), "-c", str(same))
        seen["help"] = (await run("serve", "--help"))[1]
        seen |= await refused(tmp_path, config)
    seen["standard error"], seen["access log"] = printed.decode(), (tmp_path / "access.log").read_text()
    assert "the bug that a test wants" in seen["standard error"]
    assert "DEBUG" in seen["standard error"]
    assert str(config) in seen["command line"]
    assert any(SETTINGS["s3-session"].encode() in head for head in origin.heads)
    if leaking := {where: found for where, text in seen.items() if (found := leaks(text))}:
        lines = [line[:600] for line in seen["standard error"].splitlines() if leaks(line)]
        pytest.fail(f"{leaking}\n" + "\n".join(lines[:20]))
