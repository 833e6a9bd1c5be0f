"""Writes of one key change its object in the order in which they came."""

import asyncio
from collections.abc import Iterator

import pytest
from proxy_under_test import S3, Proxy, pattern, until
from relay import Cut, Seen, canned
from tus_client import created, patched
from wire import Response, chunked, message

from bucketfront.cache.upload import Upload
from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey
from bucketfront.s3.upload.parts import MAX_GATHER_BYTES, PART_SIZE
from bucketfront.server import write_order
from bucketfront.server.write_order import WriteOrder, WritePlace


class Turns:
    """Counts the writes that have asked for their turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        real = WritePlace.turn

        async def turn(place: WritePlace) -> None:
            self.asked += 1
            await real(place)

        monkeypatch.setattr(WritePlace, "turn", turn)

    async def one_more(self, write: "asyncio.Task[Response]") -> None:
        """Wait until this write has asked, or has ended without that."""
        before = self.asked
        await until(lambda: self.asked > before or write.done())


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


def hold_first(proxy: Proxy) -> tuple[asyncio.Event, asyncio.Event]:
    """Hold the first PUT at the relay until the second event. The first event is set once it is there."""
    came, gate = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.method == "PUT" and not came.is_set():
            came.set()
            await gate.wait()

    proxy.relay.on_request = hold
    return came, gate


@pytest.mark.parametrize("later", ["PUT", "DELETE", "POST"])
async def test_the_later_write_prevails(proxy: Proxy, s3: S3, turns: Turns, later: str) -> None:
    """A write that comes while an earlier one is at S3 waits for it, so that the object is the later one's (I5)."""
    came, gate = hold_first(proxy)
    first = asyncio.create_task(proxy.request("PUT", "/x", body=b"first"))
    await came.wait()
    body = {"PUT": b"second", "DELETE": None, "POST": b"<Delete><Object><Key>x</Key></Object></Delete>"}[later]
    second = asyncio.create_task(proxy.request(later, "/x" if later != "POST" else "/?delete", body=body))
    await turns.one_more(second)
    gate.set()
    assert [(await write).status for write in (first, second)] == [201, {"PUT": 201, "DELETE": 204, "POST": 200}[later]]
    assert s3.keys() == (["x"] if later == "PUT" else [])
    response = await proxy.get("/x")
    assert (response.status, response.body == b"second") == ((200, True) if later == "PUT" else (404, False))


async def test_another_key_does_not_wait(proxy: Proxy, s3: S3) -> None:
    """A write that S3 takes long for holds up no other key."""
    came, gate = hold_first(proxy)
    first = asyncio.create_task(proxy.request("PUT", "/x", body=b"first"))
    await came.wait()
    assert (await proxy.request("PUT", "/y", body=b"second")).status == 201
    gate.set()
    assert (await first).status == 201
    assert s3.keys() == ["x", "y"]


async def test_a_slow_client_holds_up_nobody(proxy: Proxy, s3: S3) -> None:
    """A write waits for no body that has not arrived. The object is then the one of the body that was complete last."""
    async with proxy.connection() as connection:
        head = message("PUT", "/x", {"Transfer-Encoding": "chunked"})
        await connection.send(head + chunked(b"slow", end=False))
        for body in (b"one", b"two"):
            assert (await proxy.request("PUT", "/x", body=body)).status == 201
            assert s3.get("x") == body
        await connection.send(chunked())
        assert (await connection.response("PUT")).status == 201
    assert s3.get("x") == b"slow"
    assert (await proxy.get("/x")).body == b"slow"


async def test_a_write_that_fails_holds_up_no_other(proxy: Proxy, s3: S3, turns: Turns) -> None:
    """After an earlier write that failed, the later one is carried out."""
    came, gate = asyncio.Event(), asyncio.Event()

    async def fail_first(seen: Seen) -> None:
        if seen.method == "PUT" and not gate.is_set():
            came.set()
            await gate.wait()
            raise Cut

    proxy.relay.on_request = fail_first
    first = asyncio.create_task(proxy.request("PUT", "/x", body=b"first"))
    await came.wait()
    second = asyncio.create_task(proxy.request("PUT", "/x", body=b"second"))
    await turns.one_more(second)
    gate.set()
    await first
    assert (await second).status == 201
    assert s3.get("x") == b"second"


async def test_a_slow_body_on_its_way_to_s3_holds_up_nobody(
    proxy: Proxy, s3: S3, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write waits for no body that S3 gets while it arrives, because the disk takes none of it."""
    with monkeypatch.context() as broken:

        async def refuse(self: Upload, data: bytes) -> None:
            raise StoreError("the disk is broken")

        broken.setattr(Upload, "write", refuse)
        async with proxy.connection() as connection:
            slow = pattern(4 * MAX_GATHER_BYTES)  # the disk gets the first bytes once there are so many
            head = message("PUT", "/x", {"Content-Length": str(len(slow))})
            await connection.send(head + slow[:-1])
            await until(lambda: turns.asked)
            for body in (b"one", b"two"):
                assert (await proxy.request("PUT", "/x", body=body)).status == 201
                assert s3.get("x") == body
            await connection.send(slow[-1:])
            assert (await connection.response("PUT")).status == 201
    assert (await proxy.get("/x")).body == s3.get("x")


async def test_a_file_of_a_form_that_goes_on(proxy: Proxy, s3: S3, turns: Turns) -> None:
    """A file of a form has its place once all of it has come, although the rest of the form has not."""
    came, gate = hold_first(proxy)
    head = '--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
    fields = {"Content-Type": "multipart/form-data; boundary=b", "Transfer-Encoding": "chunked"}
    key = b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\n${filename}\r\n'
    async with proxy.connection() as connection:
        begin = key + head.encode() + b"first\r\n" + head.replace('="x"', '="y"').encode() + b"other" * 9
        await connection.send(message("POST", "/", fields) + chunked(begin, end=False))
        await came.wait()
        second = asyncio.create_task(proxy.request("PUT", "/x", body=b"second"))
        await turns.one_more(second)
        gate.set()
        assert (await second).status == 201
        await connection.send(chunked(b"\r\n--b--\r\n"))
        assert (await connection.response("POST")).status == 201
    assert (s3.get("x"), s3.get("y")) == (b"second", b"other" * 9)


@pytest.mark.parametrize("is_earlier", [True, False])
async def test_a_resumable_upload_has_its_place(proxy: Proxy, s3: S3, turns: Turns, is_earlier: bool) -> None:
    """The completion of a resumable upload of several parts and a PUT prevail in the order in which they came."""
    body = pattern(PART_SIZE + 4)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[:-1])).status == 204
    came, gate = asyncio.Event(), asyncio.Event()

    async def hold(seen: Seen) -> None:
        if seen.method in ("PUT", "POST") and not came.is_set():
            came.set()
            await gate.wait()

    proxy.relay.on_request = hold

    async def complete() -> Response:
        return await patched(proxy, url, len(body) - 1, body[-1:])

    async def put() -> Response:
        return await proxy.request("PUT", "/x", body=b"put")

    first = asyncio.create_task(complete() if is_earlier else put())
    await came.wait()  # the PUT of the last part, or of the object
    second = asyncio.create_task(put() if is_earlier else complete())
    await turns.one_more(second)
    gate.set()
    assert {(await first).status, (await second).status} == {204, 201}
    expected = b"put" if is_earlier else body
    assert s3.get("x") == expected
    assert (await proxy.get("/x")).body == expected


async def test_a_failed_last_part_keeps_the_cached_object(proxy: Proxy, s3: S3) -> None:
    """Before the call that may change the object, a resumable upload removes nothing from the cache."""
    s3.put("x", b"old")
    await proxy.get("/x")
    body = pattern(PART_SIZE + 4)
    url = await created(proxy, len(body))
    assert (await patched(proxy, url, 0, body[:-1])).status == 204

    async def refuse(seen: Seen) -> bytes | None:
        return canned(403, "AccessDenied") if seen.method == "PUT" else None

    proxy.relay.on_request = refuse
    assert (await patched(proxy, url, len(body) - 1, body[-1:])).status >= 400
    seen = len(proxy.relay.seen)
    assert (await proxy.get("/x")).body == b"old"
    assert len(proxy.relay.seen) == seen


KEY, OTHER = (ObjectKey("bucket", name) for name in "xy")


@pytest.fixture
def order() -> Iterator[WriteOrder]:
    made = WriteOrder()
    yield made
    assert made._places == {}


async def has_turn(place: WritePlace) -> bool:
    """Return whether a write may go on without a wait."""
    turn = asyncio.create_task(place.turn())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if not turn.done():
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
        return False
    return True


async def test_an_earlier_write_that_has_arrived_comes_first(order: WriteOrder) -> None:
    """An earlier write goes first once its body has arrived, although its turn comes later."""
    arrived = False
    with order.place([KEY], lambda: arrived) as first, order.place([KEY]) as second:
        arrived = True
        assert not await has_turn(second)
        assert await has_turn(first)
        assert not await has_turn(second)
        with order.place([OTHER]) as other:
            assert await has_turn(other)


async def test_a_write_that_goes_on_while_its_body_arrives(order: WriteOrder) -> None:
    """A write that S3 gets while it arrives is awaited only once all of it has come."""
    arrived = False
    with order.place([KEY], lambda: arrived) as first, order.place([KEY]) as second:
        assert await has_turn(first)
        assert await has_turn(second)
        arrived = True
        with order.place([KEY]) as third:
            assert not await has_turn(third)


async def test_a_later_write_that_has_its_turn_is_awaited(order: WriteOrder) -> None:
    """A write whose body comes late waits for a later one that has overtaken it."""
    arrived = False
    with order.place([KEY], lambda: arrived) as first:
        with order.place([KEY]) as second:
            assert await has_turn(second)
            arrived = True
            assert not await has_turn(first)
        assert await has_turn(first)


async def test_writes_of_many_keys_do_not_wait_for_each_other_in_a_ring(order: WriteOrder) -> None:
    """Two deletes of the same keys in another order, and with repetitions, both end."""

    async def delete(*keys: ObjectKey) -> None:
        with order.place(keys) as place:
            await place.turn()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(delete(KEY, OTHER, KEY))
            group.create_task(delete(OTHER, KEY))


async def test_the_wait_has_a_bound(order: WriteOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write goes on after a while beside another that does not end (I20)."""
    monkeypatch.setattr(write_order, "MAX_WAIT_S", 0)
    with order.place([KEY]) as first, order.place([KEY]) as second:
        await first.turn()
        await second.turn()
        assert second.is_writing
