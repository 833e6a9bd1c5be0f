"""What a line of the access log has of its request, on both request paths (I19, I28)."""

import asyncio
import json
import re
from typing import Any

import pytest
from proxy_under_test import BLOCK, PART, S3, Proxy, StartProxy, pattern, until
from relay import Seen
from rows import each_row
from ulid import ULID
from wire import message

from bucketfront.server import server

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=a"}
BODY = pattern(4 * BLOCK)
SMALL = pattern(1000)
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def sources(line: dict[str, Any]) -> tuple[int, int, int]:
    return line["sent"], line["from_cache"], line["from_origin"]


async def ask(proxy: Proxy, target: str, **headers: str) -> dict[str, Any]:
    """Return the line of a GET that has ended, once all of its bytes are in the cache."""
    before = len(proxy.log)
    await proxy.get(target, **headers)
    await proxy.settled()
    await until(lambda: len(proxy.log) > before)  # a client may have all bytes before the request has ended
    return proxy.log[-1]


async def test_mount_and_key(start: StartProxy, s3: S3) -> None:
    """A line names the mount and the object of its request, in a form that needs no escape."""
    proxy = await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket, "methods": ["GET", "PUT", "DELETE"]},
            {"path": "/films/", "bucket": s3.bucket, "prefix": "public/"},
        ],
        uploads={"path": "/upload"},
    )
    s3.put("public/ä b", SMALL)
    film = {"mount": "/films/", "key": f"{s3.bucket}/public/%C3%A4%20b"}
    for _ in range(2):
        line = await ask(proxy, "/films/%C3%A4%20b")
        assert {name: line[name] for name in film} == film
    for method, target, body in (
        ("GET", "/none", None), ("PUT", "/new", b"data"), ("DELETE", "/new", None), ("POST", "/upload/form", b"data"),
    ):  # fmt: skip
        await proxy.request(method, target, {}, body)
        line = proxy.log[-1]
        assert (line["mount"], line["key"]) == ("/", f"{s3.bucket}/{target.rpartition('/')[2]}"), method
    await proxy.get("/%zz")
    assert not {"mount", "key"} & set(proxy.log[-1])


@pytest.mark.parametrize("fast_path", [True, False])
async def test_where_the_bytes_came_from(start: StartProxy, s3: S3, fast_path: bool) -> None:
    """The bytes of a response are divided into those that the cache had and those that S3 sent meanwhile."""
    proxy = await start(server={"fast_path": fast_path}, cache={"read_ahead_max": PART})
    s3.put("x", BODY)
    s3.put("large", BODY, CacheControl="no-store")
    assert sources(await ask(proxy, "/x", Range="bytes=10-19")) == (10, 0, 10)
    size = len(BODY)
    line = await ask(proxy, "/x")
    assert line["sent"] == size == line["from_cache"] + line["from_origin"]
    assert line["from_cache"] == BLOCK
    assert sources(await ask(proxy, "/x")) == (size, size, 0)
    assert sources(await ask(proxy, "/x", Range="bytes=1-2")) == (2, 2, 0)
    assert sources(await ask(proxy, "/large")) == (size, 0, size)
    assert sources(await ask(proxy, "/none")) == (0, 0, 0)
    await proxy.request("HEAD", "/x")
    assert sources(proxy.log[-1]) == (0, 0, 0)


async def test_time_to_the_first_byte(proxy: Proxy, s3: S3) -> None:
    """The time to the head is part of the whole time. A request whose client got no head has none."""
    s3.put("x", BODY)
    for _ in range(2):
        line = await ask(proxy, "/x")
        assert 0 <= line["first_byte_ms"] <= line["ms"]


async def test_no_first_byte(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that ends before its head has no time to the first byte."""
    monkeypatch.setattr(server, "DRAIN_TIMEOUT_S", 0.05)
    proxy = await start()
    s3.put("x", SMALL)

    async def leave(_: Seen) -> bytes | None:
        await proxy.stop()
        return None

    proxy.relay.on_request = leave
    async with proxy.connection() as connection:
        await connection.send(message("GET", "/x"))
        await connection.rest()
    (line,) = proxy.log
    assert (line["cut"], "first_byte_ms" in line) == ("stop", False)


@pytest.mark.parametrize("fields", [[], ["user_agent"], ["user_agent", "referer"]])
@pytest.mark.parametrize("fast_path", [True, False])
async def test_chosen_fields(start: StartProxy, s3: S3, fields: list[str], fast_path: bool) -> None:
    """`access_log.fields` says which further fields of requests the log has, on both paths."""
    proxy = await start(server={"fast_path": fast_path}, access_log={"fields": fields})
    s3.put("x", SMALL)
    sent = {"User_Agent": "me/1", "Referer": "https://a.example/p?signature=1"}
    logged = {"user_agent": "me/1", "referer": "https://a.example/p"}
    for _ in range(2):
        line = await ask(proxy, "/x", **sent)
        assert {name: line.get(name) for name in logged} == {
            name: logged[name] if name in fields else None for name in logged
        }
    assert proxy.app.fast_path is not None
    assert proxy.app.fast_path.served == fast_path


async def test_range_as_it_was_sent(proxy: Proxy, s3: S3) -> None:
    """The log has the Range of a request, also of one that has no effect."""
    s3.put("x", SMALL)
    for ranges in ("bytes=0-9", "bytes=-5", "bytes=0-1,5-6", "lines=1-2", "bytes=2000-"):
        for _ in range(2):
            assert (await ask(proxy, "/x", Range=ranges))["range"] == ranges


GIVEN = "018f4e7c-6c1b-7c3e-9a3e-2f8f0a6d2b11"


async def test_a_given_request_id(proxy: Proxy, s3: S3) -> None:
    """A safe id of the client names its request in the response and in the log, on both paths."""
    s3.put("x", SMALL)
    for _ in range(2):
        response = await proxy.get("/x", X_Request_Id=GIVEN)
        await proxy.settled()
        assert response.headers["X-Request-Id"] == GIVEN == proxy.log[-1]["request_id"]
        assert response.body == SMALL
    assert proxy.app.fast_path is not None
    assert proxy.app.fast_path.served == 1


@each_row("given", ["", "a b", 'a"', "a" * 129, "ä", "a\x01"])
async def test_an_unsafe_request_id(proxy: Proxy, s3: S3, given: str) -> None:
    """An id that is not safe is replaced (I28)."""
    s3.put("x", SMALL)
    for _ in range(2):
        async with proxy.connection() as connection:
            await connection.send(f"GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: {given}\r\n\r\n".encode())
            response = await connection.response()
        await proxy.settled()
        if response.status != 400:  # the parser refuses a control character
            assert ULID.from_str(response.headers["X-Request-Id"])
            assert proxy.log[-1]["request_id"] == response.headers["X-Request-Id"]


async def test_a_made_request_id(proxy: Proxy, s3: S3) -> None:
    """A request without an id gets one, unless it is a plain hit, and no two are alike."""
    s3.put("x", SMALL)
    for target in ("/x", "/none", "/%zz"):
        response = await proxy.get(target)
        assert ULID.from_str(response.headers["X-Request-Id"])
        assert proxy.log[-1]["request_id"] == response.headers["X-Request-Id"]
    await proxy.settled()
    assert "X-Request-Id" not in (await proxy.get("/x")).headers
    assert "request_id" not in proxy.log[-1]
    ids = [line["request_id"] for line in proxy.log[:-1]]
    assert len(set(ids)) == len(ids)


async def test_one_id_for_clients_of_s3(proxy: Proxy) -> None:
    """The id that an S3 client reports is the one of the log and of X-Request-Id."""
    for given in ({}, {"X-Request-Id": GIVEN}):
        response = await proxy.request("GET", "/none", SIGNED | given)
        assert response.headers["x-amz-request-id"] == response.headers["X-Request-Id"] == proxy.log[-1]["request_id"]
        assert proxy.log[-1]["request_id"] == given.get("X-Request-Id", proxy.log[-1]["request_id"])


async def test_traces(proxy: Proxy, s3: S3) -> None:
    """The log has the trace of a request and the caller's span. A malformed one is ignored."""
    s3.put("x", SMALL)
    for flags in ("00", "01"):
        line = await ask(proxy, "/x", traceparent=f"00-{TRACE_ID}-{SPAN_ID}-{flags}")
        assert (line["trace_id"], line["parent_span_id"]) == (TRACE_ID, SPAN_ID)
    for wrong in (
        "",
        "x",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-00",
        f"00-{'0' * 32}-{SPAN_ID}-00",
        f"ff-{TRACE_ID}-{SPAN_ID}-00",
    ):
        assert "trace_id" not in await ask(proxy, "/x", traceparent=wrong)


async def test_lines_stay_json(proxy: Proxy, s3: S3) -> None:
    """Fields of a client cannot break a line, on either path (I28)."""
    s3.put("x", SMALL)
    for _ in range(2):
        line = await ask(proxy, "/x", User_Agent='"},\\ \t', Referer="}")
        assert line["user_agent"] == '"},\\'
        assert json.dumps(line)


async def test_what_s3_gets(proxy: Proxy, s3: S3) -> None:
    """Requests to S3 name the request that caused them, and its span. They are signed as before."""
    for key in ("x", "y"):
        s3.put(key, BODY)
    trace = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": "a=1"}
    line = await ask(proxy, "/x", X_Request_Id=GIVEN, **trace)
    assert proxy.relay.seen
    for seen in proxy.relay.seen:  # of a lookup and of part fetches
        assert seen.headers["user-agent"].endswith(f" (request {GIVEN})")
        assert seen.headers["traceparent"] == f"00-{TRACE_ID}-{line['span_id']}-01"
        assert seen.headers["tracestate"] == "a=1"
        signed = re.search("SignedHeaders=([^,]*)", seen.headers["authorization"])
        assert signed is not None
        assert not {"user-agent", "traceparent", "tracestate"} & set(signed[1].split(";"))
    proxy.relay.reset()
    line = await ask(proxy, "/y")
    for seen in proxy.relay.seen:
        assert seen.headers["user-agent"].endswith(f" (request {line['request_id']})")
        assert "traceparent" not in seen.headers
    proxy.relay.reset()
    await proxy.request("PUT", "/z", {"X-Request-Id": GIVEN}, b"data")
    assert all(GIVEN in seen.headers["user-agent"] for seen in proxy.relay.seen)


async def test_requests_for_several_clients_name_their_cause(proxy: Proxy, s3: S3) -> None:
    """A part fetch has the id of the request whose reader it is for, whatever other requests run."""
    s3.put("x", BODY)
    await proxy.request("HEAD", "/x")
    proxy.relay.reset()
    names = {f"bytes={start}-{start + BLOCK - 1}": f"id-{start}" for start in (0, 2 * BLOCK)}
    await asyncio.gather(*(proxy.get("/x", Range=ranges, X_Request_Id=name) for ranges, name in names.items()))
    await proxy.settled()
    for seen in proxy.relay.seen:
        first = str(seen.range).partition("=")[2].partition("-")[0]
        assert seen.headers["user-agent"].endswith(f"(request id-{first})")
