"""OpenTelemetry traces, exported to a receiver of OTLP that decodes them by the protocol's own classes."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, settings_of

from bucketfront.checks.machine import check_machine
from bucketfront.errors import UnusableSetting
from bucketfront.tracing import assembly

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """A receiver of OTLP over HTTP. `status` is that of its responses, and `gate` holds them back while it is clear."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - an extra
            ExportTraceServiceRequest,
        )

        body = await request.read()
        await self.gate.wait()
        if self.status == 200:
            if request.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append({pair.key: pair.value.string_value for pair in group.resource.attributes})
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [_shown(span) for span in self.spans if span.name == name]


def _shown(span: Any) -> dict[str, Any]:
    values = {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}
    return {
        **values, "trace": span.trace_id.hex(), "span": span.span_id.hex(), "parent": span.parent_span_id.hex(),
        "kind": span.kind, "status": span.status.code, "ns": span.end_time_unix_nano - span.start_time_unix_nano,
    }  # fmt: skip


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    found.gate.set()
    await runner.cleanup()


async def traced(start: StartProxy, collector: Collector, ratio: float = 1.0, **sections: Any) -> Proxy:
    return await start(tracing={"otlp_endpoint": collector.url, "sample_ratio": ratio}, **sections)


async def counts(proxy: Proxy) -> dict[str, int]:
    text = (await proxy.admin("GET", "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("bucketfront_trace_spans_total{")]
    return {line.split('"')[1]: int(float(line.rpartition(" ")[2])) for line in lines}


async def test_a_trace_goes_on(start: StartProxy, s3: S3, collector: Collector) -> None:
    """A request of a sampled trace is a span in it, and its call of S3 a span below that, without the query (I28)."""
    proxy = await traced(start, collector, ratio=0.0)
    s3.put("a", pattern(BLOCK))
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    for _ in range(2):  # a miss, and a plain hit of the fast path
        await proxy.request("GET", "/a", parent)
        await proxy.settled()
    await proxy.request("GET", "/a?token=secret", parent)
    await proxy.stop()
    miss, hit, asked = collector.named("GET /{key}")
    assert {span["trace"] for span in (miss, hit, asked)} == {TRACE}
    assert {span["parent"] for span in (miss, hit, asked)} == {PARENT}
    assert len({span["span"] for span in (miss, hit, asked)}) == 3
    assert (miss["http.request.method"], miss["url.path"], miss["http.response.status_code"]) == ("GET", "/a", 200)
    assert (miss["bucketfront.cache"], hit["bucketfront.cache"]) == ("miss", "hit")
    assert miss["http.response.body.size"] == BLOCK
    (call,) = collector.named("S3.GetObject")
    assert (call["trace"], call["parent"], call["kind"]) == (TRACE, miss["span"], 3)
    assert (call["rpc.system"], call["rpc.service"], call["rpc.method"]) == ("aws-api", "S3", "GetObject")
    assert (call["aws.s3.bucket"], call["aws.s3.key"], call["http.response.status_code"]) == (s3.bucket, "a", 206)
    assert call["ns"] > 0
    assert proxy.relay.seen[-1].headers["traceparent"] == f"00-{TRACE}-{miss['span']}-01"
    assert "secret" not in str(collector.spans)
    assert collector.resources[0]["service.name"] == "bucketfront"


async def test_sampling(start: StartProxy, s3: S3, collector: Collector) -> None:
    """A trace that its sender has not sampled has no span, whatever the ratio is. With a ratio of 1, others begin."""
    proxy = await traced(start, collector)
    s3.put("a", b"body")
    await proxy.request("GET", "/a", {"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await proxy.settled()
    for _ in range(2):
        await proxy.get("/a")
    await proxy.request("HEAD", "/a?x")
    await proxy.stop()
    spans = [_shown(span) for span in collector.spans]
    assert len(spans) == 3
    assert {span["parent"] for span in spans} == {""}
    assert len({span["trace"] for span in spans}) == 3
    assert TRACE not in {span["trace"] for span in spans}


async def test_a_trace_that_begins_here(start: StartProxy, s3: S3, collector: Collector) -> None:
    """The log has the trace of a request that began one, and its calls of S3 belong to it."""
    proxy = await traced(start, collector)
    s3.put("a", b"body")
    await proxy.get("/a")
    line = proxy.log[-1]
    await proxy.stop()
    (server,), (call,) = collector.named("GET /{key}"), collector.named("S3.GetObject")
    assert (line["trace_id"], line["span_id"]) == (server["trace"], server["span"])
    assert (call["trace"], call["parent"]) == (server["trace"], server["span"])


async def test_errors(start: StartProxy, s3: S3, collector: Collector) -> None:
    """A failure of S3 is an error of its span and of the request's, by a name and without S3's message."""
    proxy = await traced(start, collector)

    async def fail(_: object) -> bytes:
        return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

    proxy.relay.on_request = fail
    assert (await proxy.get("/a")).status == 502
    assert (await proxy.get("/../%zz")).status == 400
    await proxy.stop()
    failed = [span for span in collector.named("GET /{key}") if span["http.response.status_code"] == 502]
    assert [span["status"] for span in failed] == [2]
    assert failed[0]["error.type"] == "OriginServerError"
    calls = collector.named("S3.GetObject")
    assert {(call["status"], call["error.type"], call["http.response.status_code"]) for call in calls} == {
        (2, "OriginServerError", 500)
    }


async def test_a_collector_that_is_slow(
    start: StartProxy, s3: S3, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans beyond the bound are dropped and counted, requests go on, and the stop is in time (I19, I20)."""
    from bucketfront.tracing import span_export  # noqa: PLC0415 - an extra

    monkeypatch.setattr(span_export, "MAX_PENDING", 4)
    monkeypatch.setattr(span_export, "CLOSE_TIMEOUT_S", 0.1)
    collector.gate.clear()
    proxy = await traced(start, collector)
    s3.put("a", b"body")
    for _ in range(9):
        assert (await proxy.get("/a")).body == b"body"
    assert len(proxy.log) == 9  # all requests have ended
    found = await counts(proxy)
    assert found["exported"] == 0
    assert found["dropped"] + found["failed"] >= 6  # nine requests and at least one call of S3, of which four wait
    await proxy.stop()


async def test_a_collector_that_refuses(start: StartProxy, s3: S3, collector: Collector) -> None:
    """Spans that the collector refuses count as failed, and requests do not notice."""
    collector.status = 400
    proxy = await traced(start, collector)
    s3.put("a", b"body")
    assert (await proxy.get("/a")).body == b"body"
    tracing = proxy.app._tracing
    assert tracing is not None
    await proxy.stop()
    assert (tracing.export.exported, tracing.export.failed) == (0, 2)


async def test_without_the_setting(proxy: Proxy, s3: S3) -> None:
    """Without `tracing` there is no span, no series and no trace of its own at S3."""
    s3.put("a", b"body")
    await proxy.get("/a")
    assert await counts(proxy) == {}
    assert "traceparent" not in proxy.relay.seen[-1].headers


async def test_without_the_extra(
    start: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    """Without the packages, the start and `check` fail with the command that installs them (I30)."""
    monkeypatch.setattr(assembly, "find_spec", lambda _: None)
    with pytest.raises(UnusableSetting, match=r"pip install 'bucketfront\[otel\]'") as caught:
        await traced(start, collector)
    assert caught.value.at == ("tracing",)
    settings = settings_of(tmp_path, collector.url, "b", tracing={})
    (found,) = [result for result in check_machine(settings, str, None) if result.subject == "tracing"]
    assert not found.is_fine
    assert "bucketfront[otel]" in found.message
