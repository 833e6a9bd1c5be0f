"""What an operator sees of a failing origin: the access log, warnings, metrics and `/readyz`."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern
from relay import Cut, Seen, canned
from rows import each_row

from bucketfront.admin.health import Phase
from bucketfront.cache.storage.folder import Folder
from bucketfront.cache.storage.storage import DiskSpace
from bucketfront.s3 import breaker, client, pace

IDS = ("x-amz-request-id: 4442587FB7D0A2F9", "x-amz-id-2: vlR7Pnpv/+abc=")
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "4", "Content-Type": "application/offset+octet-stream"}
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ndata\r\n--b--\r\n',
    {"Content-Type": "multipart/form-data; boundary=b"},
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MIN_RATE", 1000.0)
    monkeypatch.setattr(client, "RETRY_PAUSE_S", 0.0)


@pytest.fixture(autouse=True)
def _patient_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "MAX_FAILURES", 1000)


def refuse_with(proxy: Proxy, status: int, code: str) -> None:
    async def refuse(_: Seen) -> bytes | None:
        return canned(status, code, *IDS)

    proxy.relay.on_request = refuse


def s3_of(status: int, code: str) -> dict[str, Any]:
    return {"status": status, "code": code, "request_id": "4442587FB7D0A2F9", "host_id": "vlR7Pnpv/+abc="}


@each_row(
    ("method", "target", "headers", "body"),
    [
        ("GET", "/x", {}, None),
        ("GET", "/x", {"Range": "bytes=0-9"}, None),
        ("PUT", "/x", {}, b"data"),
        ("PUT", "/x", {}, bytes(9 << 20)),
        ("POST", "/folder/", FORM[1], FORM[0]),
        ("POST", "/upload", TUS, b"data"),
        ("DELETE", "/x", {}, None),
        ("POST", "/?delete", {}, b"<Delete><Object><Key>x</Key></Object></Delete>"),
    ],
)
@each_row(("status", "code"), [(400, "ExpiredToken"), (403, "AccessDenied"), (503, "SlowDown")])
async def test_each_failed_request_names_s3s_reason(
    proxy: Proxy, method: str, target: str, headers: dict[str, str], body: bytes | None, status: int, code: str
) -> None:
    """The log line of each kind of request has S3's status, code and ids, and a cause with the cure (I35)."""
    refuse_with(proxy, status, code)
    assert (await proxy.request(method, target, headers, body)).status >= 400
    line = proxy.log[-1]
    assert line["s3"] == s3_of(status, code)
    assert code in line["cause"]
    assert ("origin.credentials" in line["cause"]) == (code == "ExpiredToken")


async def test_a_head_names_s3s_reason(proxy: Proxy) -> None:
    """A HEAD has the reason that a GET showed, because S3 explains nothing to a HEAD."""
    refuse_with(proxy, 403, "InvalidAccessKeyId")
    assert (await proxy.request("HEAD", "/x")).status == 502
    assert proxy.log[-1]["s3"] == s3_of(403, "InvalidAccessKeyId")


async def test_keys_that_were_not_deleted(proxy: Proxy) -> None:
    """A DeleteObjects of which S3 refuses a key has the code in its line, though its status is 200."""
    result = (
        b"<DeleteResult><Deleted><Key>x</Key></Deleted>"
        b"<Error><Key>y</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    )

    async def refuse_one(_: Seen) -> bytes | None:
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(result)}\r\n\r\n"
        return head.encode() + result

    proxy.relay.on_request = refuse_one
    body = b"<Delete><Object><Key>x</Key></Object><Object><Key>y</Key></Object></Delete>"
    assert (await proxy.request("POST", "/?delete", {}, body)).status == 200
    line = proxy.log[-1]
    assert (line["s3"], line["cause"]) == (
        {"status": 200, "code": "AccessDenied"},
        "1 of 2 keys were not deleted",
    )


async def test_without_a_response(proxy: Proxy) -> None:
    """Without a response of the origin, the line has a cause and no `s3`. A success has neither."""
    await proxy.relay.stop()
    await proxy.get("/x")
    line = proxy.log[-1]
    assert (line["fault"], "s3" in line) == ("OriginUnavailable", False)
    assert line["cause"].startswith(f"GET {proxy.app.settings.mounts[0].bucket}/x: the connection was refused: check ")
    assert proxy.app.origin.calls.failures.counts["GetObject", "refused"] >= 1
    await proxy.relay.start()
    assert (await proxy.request("PUT", "/y", body=b"data")).status == 201
    assert {"fault", "cause", "s3"}.isdisjoint(proxy.log[-1])


async def test_a_stale_response_names_the_failure(proxy: Proxy, s3: S3) -> None:
    """A client that got a stale response because the origin failed is in the log with the failure (I31)."""
    s3.put("x", b"data")
    await proxy.get("/x")
    proxy.clock.advance(1000)
    refuse_with(proxy, 500, "InternalError")
    assert (await proxy.get("/x")).cache_status.endswith('detail="stale-if-error"')
    line = proxy.log[-1]
    assert line["status"] == 200
    assert (line.get("fault"), line.get("s3")) == ("OriginServerError", s3_of(500, "InternalError"))
    proxy.relay.on_request = None
    assert (await proxy.get("/x")).status == 200
    assert {"fault", "cause", "s3"}.isdisjoint(proxy.log[-1])


async def test_a_cut_response_names_the_failure(proxy: Proxy, s3: S3) -> None:
    """A client that got a part because the origin broke off is in the log with the cause (I3)."""
    s3.put("x", pattern(6 * BLOCK))

    async def break_off(seen: Seen) -> None:
        if seen.offset >= 2 * BLOCK:
            raise Cut

    proxy.relay.on_body = break_off
    assert not (await proxy.get("/x")).is_complete
    line = proxy.log[-1]
    assert line["cut"] == "origin"
    assert "broke off" in line["cause"] or "ended" in line["cause"]


async def test_hostile_texts_of_the_origin(start: StartProxy, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """What the origin says reaches neither the log lines nor the warnings with a control character (I28)."""
    proxy = await start()
    hostile = (
        b"HTTP/1.1 403 X\r\nx-amz-request-id: a\x1b[31m\x01\r\nConnection: close\r\nContent-Length: 62\r\n\r\n"
        b"<Error><Code>Evil&#10;\x1b[31m</Code><Message>AKIA-x</Message></Error>"
    )

    async def refuse(_: Seen) -> bytes | None:
        return hostile

    proxy.relay.on_request = refuse
    await proxy.get("/%1b%0ax")
    text = "".join(map(str, proxy.log)) + caplog.text
    assert "\x1b" not in text.replace("\\x1b", "")
    assert "AKIA" not in text


async def test_one_warning_and_one_end(proxy: Proxy, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred failures of a kind are one warning with the cure, and their end is told with their number."""
    s3.put("x", b"data")
    now = 0.0
    troubles = proxy.app.troubles
    troubles._clock = lambda: now
    refuse_with(proxy, 400, "ExpiredToken")
    for number in range(100):
        await proxy.get(f"/{number}")
    proxy.relay.on_request = None
    now = 180.0
    assert (await proxy.get("/x")).status == 200
    warnings = [record.getMessage() for record in caplog.records if record.name == "bucketfront"]
    assert len(warnings) == 2
    assert warnings[0].startswith("the origin refuses our credentials (ExpiredToken): GET ")
    assert "origin.credentials" in warnings[0]
    assert warnings[1] == "the origin accepts our credentials again (ExpiredToken) after 3 min, 100 requests failed"
    assert {record.levelname for record in caplog.records if record.name == "bucketfront"} == {"WARNING"}


async def test_a_client_that_leaves_is_no_failure_of_the_origin(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """An upload whose client breaks off, or sends a wrong checksum, is no failure of the origin (I35)."""
    await proxy.request("PUT", "/x", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, b"data")
    assert [record for record in caplog.records if record.name == "bucketfront"] == []
    assert not proxy.app.origin.calls.failures.counts.keys() - {("PutObject", "ok")}


async def test_metrics_by_code(proxy: Proxy, s3: S3) -> None:
    """Requests to S3 are counted by operation and code, unknown codes as one, and the reasons are gauges (I28)."""
    s3.put("x", b"data")
    await proxy.get("/x")
    await proxy.get("/absent")
    for status, code in ((400, "ExpiredToken"), (400, "ExpiredToken"), (500, "InventedByTheOrigin"), (503, "SlowDown")):
        refuse_with(proxy, status, code)
        await proxy.request("DELETE", "/y")
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    assert "InventedByTheOrigin" not in text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    def requests(operation: str, outcome: str) -> float:
        return samples["bucketfront_origin_requests_total", ("operation", operation), ("outcome", outcome)]

    assert requests("GetObject", "ok") == 1
    assert requests("GetObject", "NoSuchKey") == 1
    assert requests("DeleteObject", "ExpiredToken") == 2
    assert requests("DeleteObject", "other") == 3  # a DELETE is repeated
    bucket = ("bucket", s3.bucket)
    assert samples["bucketfront_origin_throttled_total", bucket] == 3
    assert samples["bucketfront_origin_pace_limit", bucket] == pace.MIN_RATE
    assert samples["bucketfront_degraded", ("reason", "credentials-refused")] == 1
    assert samples["bucketfront_degraded", ("reason", "disk-failing")] == 0


async def ready(proxy: Proxy) -> tuple[int, list[str]]:
    proxy.app.health.tick()
    response = await proxy.admin("GET", "/readyz")
    return response.status, response.body.decode().splitlines()


async def test_ready_and_degraded(proxy: Proxy, s3: S3) -> None:
    """With refused credentials the proxy is ready and degraded, and says why, in text and JSON (I31)."""
    s3.put("x", b"data")
    assert await ready(proxy) == (200, ["ready"])
    refuse_with(proxy, 403, "InvalidAccessKeyId")
    await proxy.get("/x")
    status, lines = await ready(proxy)
    assert (status, lines[0], len(lines)) == (200, "ready", 2)
    assert lines[1].startswith("degraded: credentials-refused (InvalidAccessKeyId), for ")
    response = await proxy.admin("GET", "/readyz", headers={"Accept": "application/json"})
    state = response.json()
    assert (response.status, state["status"], state["ready"]) == (200, "degraded", True)
    (reason,) = state["reasons"]
    assert (reason["reason"], reason["name"]) == ("credentials-refused", "InvalidAccessKeyId")
    assert s3.bucket not in response.body.decode()  # no token is needed
    proxy.relay.on_request = None
    await proxy.get("/x")
    assert await ready(proxy) == (200, ["ready"])


async def test_an_open_breaker_degrades(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With S3 out of reach the proxy is ready and degraded, and the operator is told what it means (I31)."""
    monkeypatch.setattr(breaker, "MAX_FAILURES", 3)
    await proxy.relay.stop()
    for number in range(3):
        await proxy.get(f"/{number}")
    status, lines = await ready(proxy)
    assert status == 200
    assert "degraded: origin-unreachable (circuit-breaker), for 0 s" in lines
    assert "what is not cached fails at once" in caplog.text


async def test_a_failing_disk_degrades(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """A disk, an index or a log that fails degrades the proxy, with a warning or an end of it (I16)."""
    proxy.app.cache_assembly.store.note_failure("Input/output error")
    proxy.app.cache_assembly.flusher.has_failed = True
    _, lines = await ready(proxy)
    assert [line.partition(",")[0] for line in lines] == [
        "ready",
        "degraded: disk-failing (disk)",
        "degraded: index-failing (index)",
    ]
    assert "Input/output error" in caplog.text
    proxy.app.cache_assembly.flusher.has_failed = False
    proxy.app.cache_assembly.store._failed_at = None
    assert await ready(proxy) == (200, ["ready"])


async def test_inodes_run_out(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While hardly an inode is left, /readyz, metrics and the log show it, and requests go on uncached (I16, I17)."""
    free = 900
    monkeypatch.setattr(Folder, "space", lambda _: DiskSpace(1 << 40, 1 << 41, free, 1000))
    proxy = await start(cache={"min_free": "5%"})  # of the inodes as well: 50
    s3.put("x", b"data")
    for free, is_short in ((60, False), (40, False), (20, True), (0, True), (60, False)):
        await proxy.step()
        _, lines = await ready(proxy)
        assert [line.partition(",")[0] for line in lines[1:]] == ["degraded: inodes-used-up (inodes)"] * is_short
        text = (await proxy.admin("GET", "/metrics")).body.decode()
        assert f"bucketfront_disk_free_inodes {float(free)}" in text
        assert "bucketfront_disk_inodes 1000.0" in text
        response = await proxy.get("/x")
        assert (response.status, response.body) == (200, b"data")
        assert ("stored" in response.cache_status) == (free == 60)
    assert "20 of 1,000 are free" in caplog.text
    assert "move cache.dir to a file system with more inodes" in caplog.text
    assert proxy.figures["disk_failures"] == 0


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING])
async def test_not_ready(proxy: Proxy, phase: Phase) -> None:
    """Before it serves, and once it stops, the proxy is not ready, and says which of them it is."""
    proxy.app.health.phase = phase
    assert await ready(proxy) == (503, ["not ready", phase.value])
    response = await proxy.admin("GET", "/readyz", headers={"Accept": "application/json"})
    assert (response.status, response.json()["status"]) == (503, phase.value)
