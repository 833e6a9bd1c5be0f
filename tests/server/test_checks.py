"""`bucketfront check` and `bucketfront serve` agree about every situation: each row runs both."""

import os
import resource
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from certificates import issue
from fakes import response
from held_port import held_port
from policy_s3 import ALL, PolicyS3, dated, failure
from proxy_under_test import settings_of
from wire import fetch

from bucketfront.app import App
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.schema import SCHEMA_VERSION
from bucketfront.checks import CheckVerdict, run_checks
from bucketfront.config.settings import Settings
from bucketfront.errors import ProxyError

BUCKET = "bucket"
READS = ["GET", "HEAD"]
PAGE = b"<!doctype html><title>Sign in</title>"


def page(status: str, location: str | None = None) -> bytes:
    return response(status, PAGE, Content_Type="text/html; charset=utf-8", Location=location)


def s3_of(*allowed: str, **options: Any) -> Callable[[], PolicyS3]:
    return lambda: PolicyS3(allowed or ALL, **options)


def troubled(trouble: bytes) -> Callable[[], PolicyS3]:
    return lambda: PolicyS3(trouble=trouble)


@dataclass
class Place:
    """What a situation may change: the folder, the sections of the settings, the environment."""

    folder: Path
    stack: AsyncExitStack
    monkeypatch: pytest.MonkeyPatch
    sections: dict[str, Any] = field(default_factory=dict)
    authority: trustme.CA = field(default_factory=trustme.CA)

    def set(self, section: str, **values: Any) -> None:
        self.sections.setdefault(section, {}).update(values)

    def tls(self, **options: Any) -> tuple[Path, Path]:
        """Write a certificate and its key, and configure them."""
        issued = self.authority.issue_cert("localhost", **options)
        chain, key = self.folder / "chain.pem", self.folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(chain)
        issued.private_key_pem.write_to_path(key)
        self.set("server", tls={"certificate": str(chain), "key": str(key)})
        return chain, key

    def taken_port(self) -> int:
        taken = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        return int(taken.getsockname()[1])


Prepare = Callable[[Place], object]


@dataclass(frozen=True)
class Situation:
    """`subject` is that of the failed check, or empty if all is fine. Its message has all `words`, and none of
    `never`.

    `warned` is the subject of a warning.
    """

    name: str
    s3: Callable[[], PolicyS3] = PolicyS3
    prepare: Prepare = lambda _: None
    subject: str = ""
    words: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    warned: str = ""
    methods: tuple[str, ...] = ("GET",)


def mounts(**options: Any) -> Prepare:
    def prepare(place: Place) -> None:
        place.sections["mounts"] = [{"path": "/", "bucket": BUCKET, **options}]

    return prepare


def taking(*methods: str, **options: Any) -> Prepare:
    return mounts(methods=[*READS, *methods], **options)


def origin(**values: Any) -> Prepare:
    return lambda place: place.set("origin", **values)


def _refused(place: Place) -> None:
    place.set("origin", endpoint_url=f"http://127.0.0.1:{place.stack.enter_context(held_port())}")


def _mismatch(place: Place) -> None:
    _, key = place.tls()
    place.authority.issue_cert("localhost").private_key_pem.write_to_path(key)


def _encrypted(place: Place) -> None:
    _, key = place.tls()
    from cryptography.hazmat.primitives import serialization as pem  # noqa: PLC0415 - trustme depends on it

    plain = pem.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        plain.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret"))
    )


def _locked(place: Place) -> None:
    import fcntl  # noqa: PLC0415

    folder = place.folder / "cache"
    folder.mkdir()
    lock = place.stack.enter_context((folder / "lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)


def _newer(place: Place) -> None:
    (place.folder / "cache").mkdir()
    index = Index(place.folder / "cache" / "index.db", "any", block_size=32 << 10)
    index.open()
    index.abandon()
    octets = bytearray((place.folder / "cache" / "index.db").read_bytes())
    octets[60:64] = (SCHEMA_VERSION + 1).to_bytes(4, "big")
    (place.folder / "cache" / "index.db").write_bytes(octets)


def _file_in_the_way(place: Place) -> None:
    (place.folder / "file").write_text("a file")
    place.set("cache", dir=str(place.folder / "file" / "cache"))


def _open_to_all(place: Place) -> None:
    (place.folder / "cache").mkdir()
    (place.folder / "cache").chmod(0o777)


def _index_is_a_folder(place: Place) -> None:
    (place.folder / "cache" / "index.db").mkdir(parents=True)


def _dangling(place: Place) -> None:
    (place.folder / "cache").symlink_to(place.folder / "nowhere")


def _pipe(place: Place) -> None:
    os.mkfifo(place.folder / "pipe")
    place.set("access_log", path=str(place.folder / "pipe"))


def _log(name: str) -> Prepare:
    return lambda place: place.set("access_log", path=str(place.folder / name))


def _few_descriptors(place: Place) -> None:
    limits = (60, 60)
    place.monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    place.monkeypatch.setattr(resource, "setrlimit", lambda *_: None)


def _no_profile(place: Place) -> None:
    place.set("origin", credentials={"profile": "none"})


def _no_credentials(place: Place) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        place.monkeypatch.delenv(name, raising=False)
    place.monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    place.set("origin", credentials="default")


def _variable(value: str) -> Prepare:
    def prepare(place: Place) -> None:
        place.monkeypatch.setenv("AWS_ENDPOINT_URL", value)
        place.set("origin", endpoint_url=None)

    return prepare


def _accelerated(place: Place) -> None:
    config = place.folder / "aws-config"
    config.write_text("[default]\ns3 =\n  use_accelerate_endpoint = true\n")
    place.monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    _variable("http://127.0.0.1:9000")(place)


def _wrong_region(place: Place) -> None:
    place.monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    place.set("origin", endpoint_url=None, region="a b")


def _expired(place: Place) -> None:
    place.tls(not_before=datetime.now(UTC) - timedelta(days=9), not_after=datetime.now(UTC) - timedelta(days=1))


def _expiring(place: Place) -> None:
    place.tls(not_after=datetime.now(UTC) + timedelta(days=3))


def _not_valid_yet(place: Place) -> None:
    place.tls(not_before=datetime.now(UTC) + timedelta(days=2))


def _further(**options: Any) -> Prepare:
    """Configure a second certificate with these facts, beside one that is fine."""

    def prepare(place: Place) -> None:
        chain, key = place.tls()
        names = options.pop("names", ("other.example",))
        second = issue(place.folder, "second", place.authority, *names, **options)
        place.set("server", tls={"certificate": str(chain), "key": str(key), "certificates": [second.settings]})

    return prepare


def _client_ca(text: str | None) -> Prepare:
    def prepare(place: Place) -> None:
        chain, key = place.tls()
        authorities = place.folder / "clients.pem"
        if text is not None:
            authorities.write_text(text)
        mode = {"client_ca": str(authorities), "client_certificates": "optional"}
        place.set("server", tls={"certificate": str(chain), "key": str(key), **mode})

    return prepare


def _admin_mismatch(place: Place) -> None:
    pair = issue(place.folder, "admin", place.authority, "localhost")
    place.authority.issue_cert("localhost").private_key_pem.write_to_path(pair.key)
    place.set("admin", tls=pair.settings)


def _not_pem(place: Place) -> None:
    chain, _ = place.tls()
    chain.write_bytes(b"\x30\x82\x01\x00 in DER")


def _no_certificate(place: Place) -> None:
    chain, _ = place.tls()
    chain.unlink()


PLACE_OF_PORT = ("cannot listen on 127.0.0.1:", "in use by process", "ss -ltnp")

SITUATIONS = [
    # --- permissions to read ---
    Situation("all is allowed"),
    Situation("only GetObject", s3_of("GetObject"), warned="bucket"),
    Situation("only GetObject, and S3 explains", s3_of("GetObject", explains=True)),
    Situation("GetObject and ListBucket", s3_of("GetObject", "ListBucket")),
    Situation(
        "nothing, and S3 explains", s3_of("X", explains=True), subject="bucket", words=("s3:GetObject is missing",)
    ),
    Situation("only ListBucket", s3_of("ListBucket"), subject="bucket", words=("s3:GetObject is missing",)),
    Situation("a site's index shows GetObject", s3_of("GetObject", objects=("x", "index.html")), mounts(site={})),
    # --- where the bucket is ---
    Situation("no bucket", s3_of(buckets=()), subject="bucket", words=("NoSuchBucket", "create_bucket")),
    Situation("a bucket that is made", s3_of(buckets=()), origin(create_bucket=True)),
    Situation(
        "another region",
        troubled(failure("301 Moved Permanently", "PermanentRedirect", region="eu-west-1")),
        subject="bucket",
        words=("eu-west-1", "origin.region"),
    ),
    Situation(
        "another endpoint",
        troubled(
            failure("301 Moved Permanently", "PermanentRedirect", extra="<Endpoint>b.s3.amazonaws.com</Endpoint>")
        ),
        subject="bucket",
        words=("its endpoint is b.s3.amazonaws.com",),
    ),
    Situation(
        "a malformed authorization",
        troubled(failure("400 Bad Request", "AuthorizationHeaderMalformed", extra="<Region>eu-west-1</Region>")),
        subject="bucket",
        words=("eu-west-1", "origin.region"),
    ),
    # --- credentials and clock ---
    Situation(
        "a skewed clock",
        troubled(failure("403 Forbidden", "RequestTimeTooSkewed", date=dated(7200, time.time()))),
        subject="bucket",
        words=("RequestTimeTooSkewed", "clock"),
    ),
    Situation("a clock that can be corrected", s3_of(ahead_s=7200), warned="clock"),
    Situation("a clock that is ahead", s3_of(ahead_s=-7200), warned="clock"),
    Situation(
        "an unknown key",
        troubled(failure("403 Forbidden", "InvalidAccessKeyId")),
        subject="bucket",
        words=("origin.credentials",),
    ),
    Situation(
        "a wrong secret",
        troubled(failure("403 Forbidden", "SignatureDoesNotMatch")),
        subject="bucket",
        words=("origin.credentials",),
    ),
    Situation(
        "an expired token", troubled(failure("400 Bad Request", "ExpiredToken")), subject="bucket", words=("expired",)
    ),
    Situation(
        "a missing profile",
        prepare=_no_profile,
        subject="origin",
        words=("origin.credentials",),
        never=(", origin.credentials",),
    ),
    Situation("no credentials", prepare=_no_credentials, subject="bucket", words=("origin.credentials",)),
    # --- what answers ---
    Situation(
        "an overloaded S3", troubled(failure("503 Slow Down", "SlowDown")), subject="bucket", words=("SlowDown",)
    ),
    Situation(
        "a failing S3",
        troubled(failure("500 Internal Server Error", "InternalError")),
        subject="bucket",
        words=("InternalError",),
    ),
    Situation(
        "a page with 404", troubled(page("404 Not Found")), subject="bucket", words=("HTML", "no S3", "endpoint_url")
    ),
    Situation("a page with 403", troubled(page("403 Forbidden")), subject="bucket", words=("HTML", "no S3")),
    Situation("a page with 503", troubled(page("503 Service Unavailable")), subject="bucket", words=("HTML", "no S3")),
    Situation(
        "a login page", troubled(page("302 Found", "http://127.0.0.1/login")), subject="bucket", words=("HTML", "no S3")
    ),
    Situation("a page for every path", troubled(page("200 OK")), subject="bucket", words=("HTML", "endpoint_url")),
    Situation("no HTTP", troubled(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), subject="bucket"),
    Situation("nothing listens", prepare=_refused, subject="bucket", words=("origin.endpoint_url",)),
    Situation("a name that DNS has not", prepare=origin(endpoint_url="http://s3.invalid"), subject="bucket"),
    Situation(
        "no URL in the environment", prepare=_variable("localhost:9000"), subject="origin", words=("AWS_ENDPOINT_URL",)
    ),
    Situation(
        "half a URL in the environment", prepare=_variable("http://"), subject="origin", words=("AWS_ENDPOINT_URL",)
    ),
    Situation(
        "an option that no other endpoint has",
        prepare=_accelerated,
        subject="origin",
        words=("use_accelerate_endpoint of the profile",),
        never=("AWS_ENDPOINT_URL", "region, such"),
    ),
    Situation(
        "a region that is none",
        prepare=_wrong_region,
        subject="origin",
        words=("origin.region",),
        never=("AWS_ENDPOINT_URL",),
    ),
    # --- permissions to write ---
    Situation("writes", prepare=taking("PUT"), methods=("GET", "PUT")),
    Situation(
        "writes without PutObject",
        s3_of("GetObject", "ListBucket"),
        taking("PUT"),
        "writes",
        ("s3:PutObject",),
        methods=("GET", "PUT"),
    ),
    Situation(
        "writes without AbortMultipartUpload",
        s3_of("GetObject", "ListBucket", "PutObject"),
        taking("PUT"),
        warned="writes",
        methods=("GET", "PUT"),
    ),
    Situation("write_once", prepare=taking("PUT", "DELETE", write_once=True), methods=("GET", "PUT", "DELETE")),
    Situation(
        "write_once where conditions are ignored",
        s3_of(conditional=False),
        taking("PUT", "DELETE", write_once=True),
        subject="conditions",
        words=("501", "write_once"),
        methods=("GET", "PUT"),
    ),
    Situation(
        "writes where conditions are ignored",
        s3_of(conditional=False),
        taking("PUT", "DELETE"),
        warned="conditions",
        methods=("GET", "PUT", "DELETE"),
    ),
    Situation(
        "writes without deletes, where conditions are ignored",
        s3_of(conditional=False),
        taking("PUT"),
        warned="conditions",
        methods=("GET", "PUT"),
    ),
    Situation("deletes", prepare=taking("DELETE"), methods=("GET", "DELETE")),
    Situation(
        "deletes in a bucket with versions",
        s3_of(versioning="Enabled"),
        taking("DELETE"),
        warned="deletes",
        methods=("GET", "DELETE"),
    ),
    Situation(
        "deletes without DeleteObject",
        s3_of("GetObject", "ListBucket", "GetBucketVersioning"),
        taking("DELETE"),
        "deletes",
        ("s3:DeleteObject",),
        methods=("GET", "DELETE"),
    ),
    # --- this machine ---
    Situation(
        "the port is taken",
        prepare=lambda p: p.set("server", port=p.taken_port()),
        subject="client port",
        words=PLACE_OF_PORT,
    ),
    Situation(
        "the admin port is taken",
        prepare=lambda p: p.set("admin", port=p.taken_port()),
        subject="admin port",
        words=PLACE_OF_PORT,
    ),
    Situation(
        "the port of the S3 endpoint is taken",
        prepare=lambda p: p.set("s3", port=p.taken_port(), anonymous={"buckets": ["*"]}),
        subject="s3 port",
        words=PLACE_OF_PORT,
    ),
    Situation(
        "no such address",
        prepare=lambda p: p.set("server", host="192.0.2.1"),
        subject="client port",
        words=("no such address",),
    ),
    Situation("all addresses", prepare=lambda p: p.set("server", host="*")),
    Situation("the log's folder is missing", prepare=_log("none/access.log"), subject="access log", words=("make it",)),
    Situation("the log is a folder", prepare=_log("."), subject="access log", words=("is a folder",)),
    Situation("the log is a pipe without a reader", prepare=_pipe, subject="access log", words=("without a reader",)),
    Situation("TLS", prepare=lambda p: p.tls()),
    Situation("a certificate that ends soon", prepare=_expiring, warned="TLS certificate"),
    Situation("a certificate that has ended", prepare=_expired, subject="TLS certificate", words=("expired", "renew")),
    Situation(
        "no certificate", prepare=_no_certificate, subject="TLS certificate", words=("chain.pem cannot be read",)
    ),
    Situation("a certificate in DER", prepare=_not_pem, subject="TLS certificate", words=("PEM",)),
    Situation(
        "the key of another certificate", prepare=_mismatch, subject="TLS certificate", words=("another certificate",)
    ),
    Situation(
        "a certificate of the future", prepare=_not_valid_yet, subject="TLS certificate", words=("not valid yet",)
    ),
    Situation("a second certificate", prepare=_further()),
    Situation(
        "a second one without a name",
        prepare=_further(names=("192.0.2.1",)),
        subject="TLS certificate",
        words=("no DNS name",),
    ),
    Situation(
        "no authorities of clients",
        prepare=_client_ca(None),
        subject="TLS certificate",
        words=("clients.pem does not exist",),
    ),
    Situation(
        "authorities that are none",
        prepare=_client_ca("none"),
        subject="TLS certificate",
        words=("no certificate in PEM",),
    ),
    Situation("the admin's key", prepare=_admin_mismatch, subject="TLS certificate", words=("another certificate",)),
    Situation("an encrypted key", prepare=_encrypted, subject="TLS certificate", words=("openssl",)),
    Situation(
        "the cache is in use",
        prepare=_locked,
        subject="cache folder",
        words=("in use by another bucketfront, process",),
    ),
    Situation("a newer cache", prepare=_newer, subject="cache folder", words=("schema",)),
    Situation("a cache that others may write to", prepare=_open_to_all, subject="cache folder", words=("chmod",)),
    Situation("a file in the way of the cache", prepare=_file_in_the_way, subject="cache folder", words=("cache.dir",)),
    Situation("a link to nowhere as the cache", prepare=_dangling, subject="cache folder", words=("cache.dir",)),
    Situation(
        "a folder in the place of the index", prepare=_index_is_a_folder, subject="cache folder", words=("index.db",)
    ),
    Situation("a limit above the disk", prepare=lambda p: p.set("cache", max_size="1000TiB"), warned="cache space"),
    Situation("no room beside min_free", prepare=lambda p: p.set("cache", min_free="99.9%"), warned="cache space"),
    Situation("too few descriptors", prepare=_few_descriptors, subject="open files", words=("ulimit -n",)),
]


async def serves(settings: Settings, situation: Situation) -> bool:
    """Return whether the proxy starts with these settings and responds to the methods of the situation."""
    try:
        async with App(settings) as app:
            tls = None
            if settings.server.tls is not None:
                tls = ssl.create_default_context(cafile=str(settings.server.tls.certificate))
                tls.check_hostname, tls.verify_flags = False, tls.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN
            for method in situation.methods:
                target, body = ("/new", b"body") if method == "PUT" else ("/x", None)
                found = await fetch(app.address, target, method=method, body=body, tls=tls)
                is_page = found.headers.get("Content-Type", "").startswith("text/html")
                if found.status not in (200, 201, 204, 404) or is_page:
                    return False
    except (ProxyError, ssl.SSLError):
        return False
    return True


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
async def test_check_and_serve_agree(situation: Situation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` fails exactly if the start or a request would, with the cure, and leaves nothing behind (I30)."""
    s3 = situation.s3()
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(s3.server)
        place = Place(tmp_path, stack, monkeypatch)
        place.sections = {"uploads": None}
        mounts(methods=READS)(place)
        situation.prepare(place)
        settings = settings_of(tmp_path, s3.server.endpoint_url, BUCKET, **place.sections)
        before = _state(s3, tmp_path)
        results = await run_checks(settings)
        left = _state(s3, tmp_path)
        if situation.warned != "writes":
            assert left == before
        failed = [result for result in results if not result.is_fine]
        assert [result.subject for result in failed] == ([situation.subject] if situation.subject else [])
        for word in situation.never:
            assert word not in failed[0].message
        for word in situation.words:
            assert word in failed[0].message
        if situation.warned:
            assert [r.subject for r in results if r.verdict is CheckVerdict.WARNING] == [situation.warned]
        assert await serves(settings, situation) == (not failed)


def _state(s3: PolicyS3, folder: Path) -> tuple[set[str], set[str], list[Path]]:
    return set(s3.objects), set(s3.uploads), sorted(folder.rglob("*"))


@pytest.mark.parametrize(
    ("terms", "hint"),
    [({}, "origin.request_payer"), ({"expected_bucket_owner": "123456789012"}, "origin.expected_bucket_owner")],
)
async def test_terms_of_a_bucket_may_be_the_reason(tmp_path: Path, terms: dict[str, str], hint: str) -> None:
    """Where S3 denies all and names no reason, the settings that may be the reason are named."""
    s3 = PolicyS3(["none"])
    async with s3.server:
        sections = {"origin": terms, "mounts": [{"path": "/", "bucket": BUCKET}], "uploads": None}
        results = await run_checks(settings_of(tmp_path, s3.server.endpoint_url, BUCKET, **sections))
    (found,) = [result for result in results if result.subject == "bucket"]
    assert found.verdict is CheckVerdict.WARNING
    assert hint in found.message
