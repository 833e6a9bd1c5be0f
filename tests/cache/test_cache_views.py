"""Views of the cache for operators: pages of entries, and what they leave alone."""

from pathlib import Path
from tempfile import TemporaryDirectory

from cache_harness import Rig
from fake_origin import BLOCK, KEY, content
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cache_entries import World, world

from bucketfront.cache.entries.decision import Decision, decide
from bucketfront.cache.entries.removals import RemovalReason
from bucketfront.keys import ObjectKey

NAMES = st.text("ab/\u00e4", min_size=1, max_size=4)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "flush", "cool"]), NAMES), max_size=30)


def walk(made: World, prefix: str, limit: int) -> list[str]:
    """Return the keys of all pages."""
    found = list[str]()
    after: bytes | None = b""
    while after is not None:
        entries, after = made.entries.page("bucket", prefix, after, limit)
        assert len(entries) <= limit
        found += [entry.key.key for entry in entries]
    return found


@settings(deadline=None)
@given(steps=STEPS, prefix=st.sampled_from(["", "a", "a/", "b", "\u00e4"]), limit=st.integers(1, 5))
def test_pages_are_a_sorted_list(steps: list[tuple[str, str]], prefix: str, limit: int) -> None:
    """Whatever is in memory, in the index, or in neither yet: the pages have each entry below the prefix once."""
    with TemporaryDirectory() as folder, world(Path(folder) / "w", hot_limit=1) as made:
        expected: set[str] = set()
        for number, (step, name) in enumerate(steps):
            key = ObjectKey("bucket", name)
            if step == "add":
                made.add(key, float(number))
                expected.add(name)
            elif step == "remove" and (entry := made.entries.get(key)) is not None:
                made.entries.remove(entry, RemovalReason.PURGED)
                expected.discard(name)
            elif step == "flush":
                made.flush()
            elif step == "cool":
                made.entries.cool()
            below = sorted((one for one in expected if one.startswith(prefix)), key=str.encode)
            hot = set(made.entries._hot)
            assert walk(made, prefix, limit) == below
            assert set(made.entries._hot) == hot


async def test_a_view_of_a_cold_entry_is_that_of_a_hot_one(tmp_path: Path) -> None:
    """An entry is seen the same in memory and in the index, and a view does not bring it into memory."""
    async with Rig(tmp_path, hot_limit=0) as rig:
        rig.origin.put(content(5 * BLOCK))
        await rig.get(0, 1)
        await rig.cache.purge([KEY], soft=True)
        hot = rig.cache.explain(KEY)
        await rig.housekeeper.step()
        assert rig.entries.hot(KEY) is None
        files = rig.open_files()
        cold = rig.cache.explain(KEY)
        assert (rig.entries.hot(KEY), rig.open_files()) == (None, files)
        assert hot.blocks is not None
        assert cold.blocks is not None
        assert (cold.blocks.runs, cold.decision) == (hot.blocks.runs, Decision.REVALIDATE)
        assert cold.entry is not None
        assert hot.entry is not None
        assert (cold.entry.validated_at, cold.entry.stored, cold.entry.freshness) == (
            None, hot.entry.stored, hot.entry.freshness,
        )  # fmt: skip


async def test_a_view_is_no_use(tmp_path: Path) -> None:
    """Views do not keep an entry from being idle, and count no hit."""
    async with Rig(tmp_path, idle_timeout=100.0) as rig:
        rig.origin.put(content(BLOCK))
        await rig.get()
        rig.wall.advance(90)
        before = rig.cache.statistics()
        view = rig.cache.explain(KEY)
        assert rig.cache.entries(KEY.bucket, "", None, 9) == ([view.entry], None)
        assert rig.cache.statistics() == before
        assert rig.entry().uses == 0
        rig.wall.advance(11)
        await rig.housekeeper.step()
        assert len(rig.entries) == 0


def test_a_decision_without_an_entry() -> None:
    """Without an entry a remembered 404 decides, unless the client wants a request to the origin."""
    assert decide(None, None, 0.0) is Decision.MISS
    assert decide(None, 1.0, 0.0) is Decision.ABSENT
    assert decide(None, 1.0, 0.0, revalidate=True) is Decision.MISS
