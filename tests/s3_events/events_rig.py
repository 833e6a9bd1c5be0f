"""A cache, an applier and a reader over fakes, without threads and without time."""

import asyncio
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache_harness import Rig, steady, turns
from fake_origin import BLOCK, KEY, FakeOrigin, content
from fake_queue import FakeQueue
from fakes import FakeClock
from messages import message, record

from bucketfront.config.mount_settings import MountSettings
from bucketfront.http import dates
from bucketfront.keys import ObjectKey
from bucketfront.s3_events.continuity import Continuity
from bucketfront.s3_events.event_applier import EventApplier, places_of
from bucketfront.s3_events.queue_reader import QueueReader
from bucketfront.troubles import Troubles

DAY_S = 86_400.0
MOUNTS = (MountSettings(path="/", bucket=KEY.bucket),)


class EventsRig:
    """`put` and `delete` change the origin as other clients do, and return the message that S3 sends for it."""

    def __init__(self, root: Path, seed: int = 0, *, is_versioned: bool = False, hot_limit: int = 64) -> None:
        chance = random.Random(seed)
        self.chance = chance
        self.rig = Rig(
            root,
            origin=FakeOrigin(chance, is_versioned=is_versioned),
            policy=steady(DAY_S, DAY_S, DAY_S, DAY_S),
            negative_ttl=DAY_S,
            hot_limit=hot_limit,
            seed=seed,
        )
        self.clock = FakeClock(1_700_000_000.0)
        self.lines: list[str] = []
        self.troubles = Troubles(self.clock, self.lines.append)
        self.queue = FakeQueue(self.clock)
        self.slept: list[float] = []
        self._numbers = itertools.count(0x10_0000)
        self.applier = EventApplier(self.rig.cache, MOUNTS, self.clock)
        self.continuity = Continuity(root / "s3-events-queue.json", "queue", places_of(MOUNTS))
        self.continuity.read_at = self.clock()
        self.owns = True
        self.reader = QueueReader(
            self.queue, self.applier, self.continuity, self.troubles, self.clock, lambda: self.owns, self._sleep
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    @property
    def figures(self) -> dict[str, int]:
        """Return the counts of events by outcome."""
        found: dict[str, int] = {}
        for (_, outcome), count in self.applier.figures.events.items():
            found[outcome.value] = found.get(outcome.value, 0) + count
        return found

    @property
    def messages(self) -> dict[str, int]:
        return {outcome.value: count for (_, outcome), count in self.applier.figures.messages.items()}

    def put(self, data: bytes, key: ObjectKey = KEY, **headers: str) -> str:
        stored = self.rig.origin.store(key, data, {n.replace("_", "-"): v for n, v in headers.items()})
        assert stored.last_modified is not None
        written_at = dates.parse(stored.last_modified, 0)
        assert written_at is not None
        return self.message(
            key,
            "ObjectCreated:Put",
            time=f"2015-10-21T07:28:00.{self.chance.randrange(1000):03d}Z",
            eTag=stored.etag.strip('"'),
            size=stored.size,
            **({} if stored.version is None else {"versionId": stored.version}),
        )

    async def delete(self, key: ObjectKey = KEY) -> str:
        await self.rig.origin.delete(key)
        if self.rig.origin.is_versioned:
            return self.message(key, "ObjectRemoved:DeleteMarkerCreated", versionId=f"marker-{next(self._numbers)}")
        return self.message(key, "ObjectRemoved:Delete")

    def delete_version(self, version: str, key: ObjectKey = KEY) -> str:
        """Remove a version for good. The one before it becomes the current one if it was that."""
        origin = self.rig.origin
        gone = origin.versions.pop(key._replace(version=version))
        if origin.objects.get(key) is gone:
            left = [each for name, each in origin.versions.items() if name._replace(version=None) == key]
            if left and left[-1] is not None:
                origin.objects[key] = left[-1]
            else:
                del origin.objects[key]
        return self.message(key, "ObjectRemoved:Delete", versionId=version)

    def message(self, key: ObjectKey, name: str, *, time: str = "2015-10-21T07:28:00Z", **of_object: Any) -> str:
        sequencer = f"{next(self._numbers):018X}"
        return message(record(key.key, name, bucket=key.bucket, time=time, sequencer=sequencer, **of_object))

    async def cached(self, data: bytes | None = None, key: ObjectKey = KEY) -> bytes:
        """Have an object in the cache, and return its bytes."""
        if data is not None:
            self.rig.origin.store(key, data)
        got = await self.rig.get(key=key)
        await turns()
        return got

    async def read_until(self, holds: Callable[[], object]) -> None:
        """Run the reader until something holds."""
        task = asyncio.create_task(self.reader.run())
        try:
            for _ in range(20_000):
                if holds():
                    return
                await asyncio.sleep(0)
            raise AssertionError("the reader did not come so far")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def drain(self) -> None:
        await self.read_until(lambda: self.queue.is_empty)


def body(seed: int) -> bytes:
    return content(BLOCK, seed=seed)
