"""The reader of a queue: at least once, in spite of failures of the queue, the disk and itself."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from cache_harness import turns
from events_rig import EventsRig, body
from fake_origin import KEY
from messages import TEST_EVENT, message, record, sns
from rows import each_row

from bucketfront.errors import StoreError
from bucketfront.keys import ObjectKey
from bucketfront.s3_events import message_reader
from bucketfront.s3_events.continuity import Continuity
from bucketfront.s3_events.event_queue import QueueError, QueueFault
from bucketfront.s3_events.queue_reader import MAX_PAUSE_S
from bucketfront.troubles import Reason


def reasons(subject: EventsRig) -> set[str]:
    return {trouble.kind.name for trouble in subject.troubles.failing}


async def test_messages_are_applied_and_deleted(tmp_path: Path) -> None:
    """All messages of a queue are applied, from S3 or through SNS, and the queue is empty then."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.queue.send(TEST_EVENT, sns(subject.put(body(2))), message())
        await subject.drain()
        assert await rig.get() == body(2)
        assert subject.messages == {"test": 1, "applied": 2}
        assert not subject.lines


@pytest.mark.parametrize("seed", range(8))
async def test_a_queue_that_repeats_and_reorders(tmp_path: Path, seed: int) -> None:
    """With messages in any order, some of them twice, each object has its last version at the end (I7)."""
    subject = EventsRig(tmp_path, seed)
    subject.queue.chance = random.Random(seed)
    keys = [ObjectKey(KEY.bucket, f"{number}") for number in range(5)]
    async with subject.rig as rig:
        for key in keys:
            await subject.cached(body(1), key)
        subject.queue.send(*(subject.put(body(number % 7), key) for number in range(2, 12) for key in keys))
        await subject.drain()
        for key in keys:
            assert await rig.get(key=key) == body(11 % 7)


async def test_a_reader_that_is_killed_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was received and not applied comes again, and nothing is deleted before it is applied (I7)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.queue.send(subject.put(body(2)))
        applying = asyncio.Event()

        async def hang(*_: Any) -> None:
            applying.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as broken:
            broken.setattr(subject.applier, "apply", hang)
            await subject.read_until(applying.is_set)
        assert (subject.queue.deleted, len(subject.queue.in_flight)) == (0, 1)
        assert await rig.get() == body(1)
        subject.queue.return_unseen()
        await subject.drain()
        assert await rig.get() == body(2)


async def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the index takes no change, messages are handed back, and the trouble is reported (I16)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.queue.send(subject.put(body(2)))

        async def refuse() -> None:
            raise StoreError("the cache index could not be written")

        with monkeypatch.context() as broken:
            broken.setattr(rig.flusher, "flush", refuse)
            await subject.read_until(lambda: len(subject.slept) > 3)
        assert (subject.queue.deleted, reasons(subject)) == (0, {"events-not-applied"})
        assert subject.messages["failed"] >= 3
        await subject.drain()
        assert await rig.get() == body(2)
        assert reasons(subject) == set()


@pytest.mark.parametrize("has_dead_letters", [False, True])
async def test_a_message_that_is_no_event(tmp_path: Path, has_dead_letters: bool) -> None:
    """It is counted, shown with a bound, and deleted, unless the queue keeps such messages for people."""
    subject = EventsRig(tmp_path)
    subject.queue.has_dead_letters = has_dead_letters
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.queue.send("\x1b[31mred\n" * 1000, subject.put(body(2)))
        await subject.read_until(lambda: subject.queue.deleted == 2 - has_dead_letters)
        assert await rig.get() == body(2)
        assert (subject.messages["unreadable"], len(subject.queue.in_flight)) == (1, has_dead_letters)
        (line,) = subject.lines
        assert len(line) < 500
        assert line.isprintable()


@pytest.mark.parametrize("fault", QueueFault)
async def test_a_queue_that_fails(tmp_path: Path, fault: QueueFault) -> None:
    """Each failure is a trouble of its own, pauses grow up to a bound, and the first success ends it (I20)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.queue.errors.extend([None, *[QueueError(fault, "no")] * 10])
        subject.queue.send(subject.put(body(2)))
        await subject.read_until(lambda: len(subject.slept) == 10)
        assert reasons(subject) == {fault.value}
        assert {trouble.kind.reason for trouble in subject.troubles.failing} == {Reason.EVENTS_NOT_READ}
        assert all(0.5 * 2**number <= slept <= 2**number for number, slept in enumerate(subject.slept[:5]))
        assert max(subject.slept) <= MAX_PAUSE_S
        await subject.drain()
        assert await rig.get() == body(2)
        assert reasons(subject) == set()
        assert subject.queue.renewals == (10 if fault is QueueFault.CREDENTIALS else 0)


async def test_denied_attributes(tmp_path: Path) -> None:
    """Without the permission for the attributes the queue is read, and its shortest retention counts."""
    subject = EventsRig(tmp_path)
    async with subject.rig:
        subject.queue.errors.append(QueueError(QueueFault.DENIED, "no"))
        subject.queue.send(message(record(KEY.key, bucket=KEY.bucket)))
        await subject.drain()
        assert subject.continuity.retention == 60.0
        assert reasons(subject) == set()


async def test_a_reader_with_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the reader itself fails, it begins again, says so, and loses no message."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.queue.send(subject.put(body(2)))

        def broken_parse(_: str) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as broken:
            broken.setattr(message_reader, "parse", broken_parse)
            await subject.read_until(lambda: subject.slept)
        assert (reasons(subject), subject.applier.figures.reader_restarts) == ({"reader-failed"}, 1)
        subject.queue.return_unseen()
        await subject.read_until(lambda: subject.queue.is_empty and not reasons(subject))
        assert await rig.get() == body(2)


async def test_a_deleted_message_that_is_refused(tmp_path: Path) -> None:
    """A delete that fails costs a second delivery, and no more."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.queue.send(subject.put(body(2)))
        subject.queue.errors.extend([None, None, QueueError(QueueFault.THROTTLED, "slow")])
        await subject.read_until(lambda: subject.slept)
        assert await rig.get() == body(2)
        subject.queue.return_unseen()
        await subject.drain()
        assert subject.figures == {"expired": 1, "outdated": 1}


async def test_a_cache_that_another_process_owns(tmp_path: Path) -> None:
    """After a take-over the process before reads no message, because it could not apply it."""
    subject = EventsRig(tmp_path)
    async with subject.rig:
        subject.owns = False
        subject.queue.send(message())
        await subject.read_until(lambda: len(subject.slept) > 5)
        assert subject.queue.calls == []
        subject.owns = True
        await subject.drain()


async def test_a_backlog(tmp_path: Path) -> None:
    """A backlog drains with several calls at once, and the loop gets its turns between the batches (I22)."""
    subject = EventsRig(tmp_path)
    keys = [ObjectKey(KEY.bucket, f"{number}") for number in range(500)]
    async with subject.rig as rig:
        await subject.cached(body(1), keys[499])
        subject.queue.send(*(subject.put(body(2), key) for key in keys for _ in range(4)))
        running: list[int] = []
        receive = subject.queue.receive
        now = 0

        async def counted() -> Any:
            nonlocal now
            now += 1
            running.append(now)
            try:
                return await receive()
            finally:
                now -= 1

        subject.queue.receive = counted  # type: ignore[method-assign]
        await subject.drain()
        assert max(running) > 1
        assert await rig.get(key=keys[499]) == body(2)
        assert subject.queue.deleted == 2000


# --- messages that are lost --------------------------------------------------------------------------------------


async def test_the_first_read_with_a_cache(tmp_path: Path) -> None:
    """If it is not known when the queue was read last, all objects are revalidated once (I7)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.continuity.read_at = None
        subject.put(body(2))
        subject.queue.send(message())
        await subject.drain()
        assert await rig.get() == body(2)
        assert subject.applier.figures.losses == 1


@each_row(
    ("away", "lost"),
    [(3.5 * 86_400, False), (3.7 * 86_400, True), (-86_400.0, False)],
)
async def test_an_absence(tmp_path: Path, away: float, lost: bool) -> None:
    """A reader that was away for longer than the queue keeps messages trusts nothing from before (I7)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        subject.queue.send(message())
        await subject.drain()
        await subject.cached(body(1))
        subject.put(body(2))
        subject.clock.advance(away)
        subject.queue.send(message())
        await subject.drain()
        assert (await rig.get() == body(2)) is lost


async def test_messages_that_are_nearly_too_old(tmp_path: Path) -> None:
    """If messages come that are as old as the queue keeps them, others are probably lost. That counts once a minute."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.put(body(2))
        subject.queue.send(*[message()] * 30, sent_at=subject.clock() - 3.7 * 86_400)
        await subject.drain()
        assert await rig.get() == body(2)
        assert subject.applier.figures.losses == 1


async def test_a_queue_that_was_deleted(tmp_path: Path) -> None:
    """After a time in which the queue did not exist, nothing from before is trusted (I7)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        subject.queue.send(message())
        await subject.drain()
        await subject.cached(body(1))
        subject.queue.exists = False
        await subject.read_until(lambda: subject.slept)
        subject.put(body(2))
        subject.queue.exists = True
        subject.queue.send(message())
        await subject.drain()
        assert await rig.get() == body(2)


async def test_a_loss_that_cannot_be_dealt_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk refuses to mark the objects stale, it is tried again with the next read (I7)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.continuity.read_at = None
        subject.put(body(2))
        subject.queue.send(message())

        async def refuse(_: str) -> None:
            raise StoreError("no")

        with monkeypatch.context() as broken:
            broken.setattr(subject.applier, "expire_all", refuse)
            await subject.read_until(lambda: subject.slept)
        assert not subject.continuity.path.exists()
        await subject.drain()
        assert await rig.get() == body(2)


async def test_the_last_read_outlives_the_process(tmp_path: Path) -> None:
    """The time of the last read is in a file, for this queue and these mounts alone."""
    subject = EventsRig(tmp_path)
    async with subject.rig:
        subject.queue.send(message())
        await subject.drain()
        await turns()
    path = subject.continuity.path
    assert json.loads(path.read_text())["read_at"] == subject.clock()
    for source, places, known in [
        ("queue", [(KEY.bucket, "")], True),
        ("other", [(KEY.bucket, "")], False),
        ("queue", [(KEY.bucket, ""), ("new", "")], False),
        ("queue", [], True),
    ]:
        continuity = Continuity(path, source, places)
        continuity.open()
        assert (continuity.read_at is not None) is known
    for garbage in (b"", b"{", b"[]", b'{"read_at": "x"}', b"\xff", b"[" * 100_000):
        path.write_bytes(garbage)
        continuity = Continuity(path, "queue", [])
        continuity.open()
        assert continuity.read_at is None
