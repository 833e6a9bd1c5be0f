"""Events and the cache: no request after an event gets what it has changed, in any order of events (I6, I7)."""

import asyncio
import json
from pathlib import Path

import pytest
from cache_harness import turns
from events_rig import MOUNTS, EventsRig, body
from fake_origin import KEY
from hypothesis import given
from hypothesis import strategies as st
from messages import message, record
from rows import each_row

from bucketfront.cache import DeletedVersion, Invalidation, WrittenVersion
from bucketfront.config.mount_settings import MountSettings
from bucketfront.errors import StoreError
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey
from bucketfront.s3_events.continuity import Loss
from bucketfront.s3_events.event import EventMessage
from bucketfront.s3_events.event_applier import EventApplier
from bucketfront.s3_events.event_parser import parse

LATE = "2015-10-21T07:28:01Z"


async def apply(subject: EventsRig, *bodies: str) -> None:
    for each in bodies:
        await subject.applier.apply(parse(each))


@pytest.mark.parametrize("hot_limit", [0, 64])
async def test_after_an_event_no_request_gets_the_old_bytes(tmp_path: Path, hot_limit: int) -> None:
    """With a lifetime of a day, and a day to serve stale, the next request gets the new version (I7)."""
    subject = EventsRig(tmp_path, hot_limit=hot_limit)
    async with subject.rig as rig:
        await subject.cached(body(1))
        await rig.flusher.flush()
        await rig.assembly.open_files.cool()
        changed = subject.put(body(2))
        assert await rig.get() == body(1)
        await apply(subject, changed)
        assert await rig.get() == body(2)
        assert subject.figures == {"expired": 1}


async def test_a_delete_and_a_write_after_a_404(tmp_path: Path) -> None:
    """A deleted object is gone after the event, and one that appears is there, although its 404 was remembered."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        await apply(subject, await subject.delete())
        assert await rig.is_absent()
        came = subject.put(body(2))
        assert await rig.is_absent()
        await apply(subject, came)
        assert await rig.get() == body(2)


async def test_the_version_in_the_cache_stays(tmp_path: Path) -> None:
    """An event about the version that is cached costs no request: it is that of a write through the proxy."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        changed = subject.put(body(1))
        await subject.cached()
        before = rig.origin.gets, rig.origin.heads
        await apply(subject, changed, changed.replace("ObjectCreated:Put", "ObjectCreated:Post"))
        assert await rig.get() == body(1)
        assert (rig.origin.gets, rig.origin.heads) == before
        assert subject.figures == {"unchanged": 1, "outdated": 1}


async def test_a_copy_onto_itself_is_another_version(tmp_path: Path) -> None:
    """The same ETag with a later time is a write of new metadata, so the object is revalidated."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        changed = json.loads(subject.put(body(1)))
        await subject.cached()
        changed["Records"][0] |= {"eventName": "ObjectCreated:Copy", "eventTime": LATE}
        await apply(subject, json.dumps(changed))
        before = rig.origin.conditional
        assert await rig.get() == body(1)
        assert rig.origin.conditional == before + 1
        assert subject.figures == {"expired": 1}


@each_row("is_own", [True, False])
async def test_an_own_write_is_published(tmp_path: Path, is_own: bool) -> None:
    """An event that comes while the cache confirms an upload does not undo it, if it is about this upload (I5)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        changed = subject.put(body(1))
        etag = rig.origin.objects[KEY].metadata.etag
        if not is_own:
            changed = changed.replace(etag.strip('"'), "0" * 32)
        upload = rig.cache.begin_write(KEY, len(body(1)))
        await upload.write(body(1))
        rig.origin.door = asyncio.Event()
        await rig.cache.invalidate(KEY)
        publishing = asyncio.create_task(rig.cache.publish(upload, etag))
        await turns()
        await apply(subject, changed)
        rig.origin.door.set()
        await publishing
        upload.close()
        await turns()
        assert await rig.get() == body(1)
        assert rig.origin.gets == (0 if is_own else 1)


async def test_a_lookup_that_began_before_the_event(tmp_path: Path) -> None:
    """A response that was on its way when the event came is not kept (I6)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        rig.origin.store(KEY, body(1))
        rig.origin.late = asyncio.Event()
        reading = asyncio.create_task(rig.get())
        await turns()
        changed = subject.put(body(2))
        await apply(subject, changed)
        rig.origin.late.set()
        rig.origin.late = None
        await reading
        assert await rig.get() == body(2)


async def test_a_version_that_is_not_the_current_one(tmp_path: Path) -> None:
    """The end of an old version leaves the current one as it is, and that of the current one does not (I7)."""
    subject = EventsRig(tmp_path, is_versioned=True)
    async with subject.rig as rig:
        first, second = json.loads(subject.put(body(1))), json.loads(subject.put(body(2)))
        old, new = (each["Records"][0]["s3"]["object"]["versionId"] for each in (first, second))
        await subject.cached()
        pinned = KEY._replace(version=old)
        assert await subject.cached(key=pinned) == body(1)
        gone = subject.delete_version(old)
        before = rig.origin.conditional
        await apply(subject, gone)
        assert await rig.get() == body(2)
        assert rig.origin.conditional == before
        assert await rig.is_absent(pinned)
        await apply(subject, subject.delete_version(new))
        assert await rig.is_absent()


async def test_a_delete_marker_that_goes_brings_the_object_back(tmp_path: Path) -> None:
    """After the end of a delete marker the object is there again, although its 404 was remembered."""
    subject = EventsRig(tmp_path, is_versioned=True)
    async with subject.rig as rig:
        subject.put(body(1))
        kept = rig.origin.objects[KEY]
        await apply(subject, await subject.delete())
        assert await rig.is_absent()
        rig.origin.objects[KEY] = kept
        await apply(subject, subject.message(KEY, "ObjectRemoved:Delete", versionId="marker"))
        assert await rig.get() == body(1)


async def test_an_older_event_does_no_harm(tmp_path: Path) -> None:
    """After the event of the newest version, those of older ones cost no request."""
    subject = EventsRig(tmp_path, is_versioned=True)
    async with subject.rig as rig:
        first, second, third = (subject.put(body(number)) for number in range(3))
        await subject.cached()
        await apply(subject, third, first, second, third)
        before = rig.origin.gets, rig.origin.heads
        assert await rig.get() == body(2)
        assert (rig.origin.gets, rig.origin.heads) == before
        assert subject.figures == {"unchanged": 1, "outdated": 3}


async def test_the_end_of_a_version_hides_no_earlier_write(tmp_path: Path) -> None:
    """An event of a deleted version says nothing about the current one, so a write before it still counts (I7)."""
    subject = EventsRig(tmp_path, is_versioned=True)
    async with subject.rig as rig:
        subject.put(body(1))
        old = rig.origin.objects[KEY].metadata.version
        assert old is not None
        other = json.loads(subject.put(body(2)))["Records"][0]["s3"]["object"]["versionId"]
        await subject.cached()
        written = subject.put(body(3))
        gone = subject.delete_version(old)
        assert other != old
        await apply(subject, gone, written)
        assert await rig.get() == body(3)


async def test_foreign_and_idle_events(tmp_path: Path) -> None:
    """Other buckets, other prefixes, tags and reads change nothing, and are counted (I19)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.applier.adopt((MountSettings(path="/", bucket=KEY.bucket, prefix="a/"),))
        await turns()
        bodies = [
            message(record(KEY.key, bucket="other")),
            message(record("b/x", bucket=KEY.bucket)),
            message(record(KEY.key, "ObjectTagging:Put", bucket=KEY.bucket)),
            message(record(KEY.key, "s3:ObjectAccessed:Get", bucket=KEY.bucket, source="minio:s3")),
        ]
        await apply(subject, *bodies)
        assert subject.figures == {"foreign": 2, "ignored": 2}
        before = rig.origin.conditional
        assert await rig.get() == body(1)
        assert rig.origin.conditional == before


async def test_a_mount_that_is_added(tmp_path: Path) -> None:
    """What a new mount shows is revalidated, because its events did not count before (I7)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        subject.applier = EventApplier(rig.cache, (MountSettings(path="/", bucket="other"),), subject.clock)
        changed = subject.put(body(2))
        await apply(subject, changed)
        assert await rig.get() == body(1)
        subject.applier.adopt(MOUNTS)
        await rig.assembly.purges.running.wait()
        assert await rig.get() == body(2)


async def test_a_folder_that_goes(tmp_path: Path) -> None:
    """The end of a folder is that of all keys below it."""
    subject = EventsRig(tmp_path)
    inside, beside = ObjectKey(KEY.bucket, "a/b/c"), ObjectKey(KEY.bucket, "ab")
    async with subject.rig as rig:
        for key in (inside, beside):
            await subject.cached(body(1), key)
            del rig.origin.objects[key]
        gone = {
            "key": f"/buckets/{KEY.bucket}/a",
            "event_type": "delete",
            "message": {"old_entry": {"is_directory": True}},
        }
        await apply(subject, json.dumps(gone))
        assert await rig.is_absent(inside)
        assert await rig.get(key=beside) == body(1)


async def test_other_caches_learn_of_it(tmp_path: Path) -> None:
    """An event is announced to other caches, also if this one has its version already, because they may not (I7)."""

    class Announcer:
        def __init__(self) -> None:
            self.seen: list[Invalidation] = []

        def announce(self, invalidation: Invalidation) -> None:
            self.seen.append(invalidation)

        async def published(self) -> None:
            pass

    subject, announcer = EventsRig(tmp_path), Announcer()
    async with subject.rig as rig:
        changed = subject.put(body(1))
        await subject.cached()
        rig.cache.announce_to(announcer)
        await apply(subject, changed)
        (found,) = announcer.seen
        assert KEY in found.selection.keys
        assert (found.is_soft, subject.figures) == (True, {"unchanged": 1})
        await subject.applier.expire_all(Loss("new", is_of_this_cache=True))
        assert len(announcer.seen) == 1
        await subject.applier.expire_all(Loss("lost"))
        assert announcer.seen[1].selection.everything


async def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the index takes no change, the event fails and counts as not applied, so it may come again (I27)."""
    subject = EventsRig(tmp_path)
    async with subject.rig as rig:
        await subject.cached(body(1))
        changed = subject.put(body(2))

        async def refuse() -> None:
            raise StoreError("the cache index could not be written")

        with monkeypatch.context() as broken:
            broken.setattr(rig.flusher, "flush", refuse)
            with pytest.raises(StoreError):
                await apply(subject, changed)
        assert subject.figures == {}
        await apply(subject, changed)
        assert await rig.get() == body(2)


WRITES = st.lists(st.integers(0, 3), min_size=1, max_size=6)  # 0 is a delete, others are bodies


@given(WRITES, st.randoms(use_true_random=False), st.booleans(), st.booleans())
async def test_any_order_with_duplicates(
    tmp_path_factory: pytest.TempPathFactory, writes: list[int], chance: object, versioned: bool, batched: bool
) -> None:
    """Whatever the order, and however often, after all events a request gets the last version (I6, I7)."""
    subject = EventsRig(tmp_path_factory.mktemp("cache"), is_versioned=versioned)
    async with subject.rig as rig:
        await subject.cached(body(9))
        bodies: list[str] = []
        for write in writes:
            bodies.append(subject.put(body(write)) if write else await subject.delete())
            if chance.random() < 0.5:  # type: ignore[attr-defined]
                await rig.is_absent()
        bodies += [each for each in bodies if chance.random() < 0.5]  # type: ignore[attr-defined]
        chance.shuffle(bodies)  # type: ignore[attr-defined]
        if batched:
            events = [event for each in bodies for event in parse(each).events]
            await subject.applier.apply(EventMessage(tuple(events)))
        else:
            for each in bodies:
                await apply(subject, each)
                if chance.random() < 0.3:  # type: ignore[attr-defined]
                    await rig.is_absent()
        if writes[-1]:
            assert await rig.get() == body(writes[-1])
        else:
            assert await rig.is_absent()


META = Metadata('"e"', 5, "Wed, 21 Oct 2015 07:28:00 GMT", version="v")
SECOND = 1_445_412_480.0


@each_row(
    ("written", "metadata", "expected"),
    [
        (WrittenVersion("x", 9, "v", 0.0), META, True),
        (WrittenVersion("e", 5, "w", SECOND), META, False),
        (WrittenVersion("e", 5, None, SECOND + 0.9), META, True),
        (WrittenVersion("e", 5, None, SECOND + 1.0), META, False),
        (WrittenVersion("e", 6, None, SECOND), META, False),
        (WrittenVersion("f", 5, None, SECOND), META, False),
        (WrittenVersion("e", None, None, SECOND), META, True),
        (WrittenVersion("e", 5, None, None), META, False),
        (WrittenVersion(None, 5, None, SECOND), META, False),
        (WrittenVersion("e", 5, "v", SECOND), Metadata('"e"', 5), False),
        (DeletedVersion("v"), META, False),
        (DeletedVersion("w"), META, True),
        (DeletedVersion("null"), Metadata('"e"', 5), False),
        (DeletedVersion("w"), Metadata('"e"', 5), False),
    ],
)
def test_what_an_event_spares(written: WrittenVersion | DeletedVersion, metadata: Metadata, expected: bool) -> None:
    """A version is spared if its id says so, or its ETag with a time of the same second."""
    assert written.spares(metadata) is expected
