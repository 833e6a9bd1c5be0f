"""Migrations of the index: an upgrade keeps the cache, a downgrade leaves it alone (docs/invariants.md#crash-only)."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from rows import each_row

from bucketfront.cache.storage import schema
from bucketfront.cache.storage.index import Index
from bucketfront.cache.storage.records import Changes, Row
from bucketfront.errors import IndexTooNew, StoreError
from bucketfront.http.cache_tags import TagFields
from bucketfront.http.metadata import Metadata
from bucketfront.keys import ObjectKey

KEY = ObjectKey("bucket", "a/b.mp4")
BLOCK = 65536
RELEASED = {int(path.stem): path.read_text() for path in Path(__file__).with_name("schemas").glob("*.sql")}
"""SQL of the tables, by the number of the schema."""
STEP = "ALTER TABLE entries ADD COLUMN note TEXT"


def opened(folder: Path) -> Index:
    index = Index(folder / "index.db", "one", block_size=BLOCK)
    index.open()
    return index


async def stored(folder: Path) -> None:
    """Write an index of today's schema with one row."""
    index = opened(folder)
    await index.close(Changes((Row(1, KEY, f"{1:026d}", Metadata('"1"', 5), 1.0, 2.0, 3.0, 4096, 0),)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def version(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "index.db")) as database:
        found: int = database.execute("PRAGMA user_version").fetchone()[0]
        return found


def next_schema(monkeypatch: pytest.MonkeyPatch, step: str) -> int:
    """Let this bucketfront have one schema more than it has. Returns the number of the one before."""
    current = schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "MIGRATIONS", {**schema.MIGRATIONS, current: step})
    monkeypatch.setattr(schema, "SCHEMA_VERSION", current + 1)
    return current


@each_row("released", sorted(RELEASED))
async def test_each_released_schema_is_migrated(tmp_path: Path, released: int) -> None:
    """The folder of each release opens, and its entries are found."""
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        database.executescript(RELEASED[released])
        database.executemany("INSERT INTO state VALUES (?, ?)", [("boot", 0), ("block_size", BLOCK)])
        database.execute(
            "INSERT INTO entries VALUES (7, 'one', ?, ?, ?, '\"1\"', 5, ?, 1, 2, 3, 4096, 0)",
            (KEY.bucket, KEY.key.encode(), f"{7:026d}", '{"age": 0, "headers": [], "last_modified": null}'),
        )
        database.execute(f"PRAGMA user_version = {released}")
        database.commit()
    index = opened(tmp_path)
    assert index.totals() == (4096, 1)
    assert index.oldest(1)[0].id == 7
    await index.close(Changes())
    assert version(tmp_path) == schema.SCHEMA_VERSION


def test_todays_schema_is_among_the_released_ones() -> None:
    """A change of the tables adds a step and a file, and does not edit those that were released."""
    assert RELEASED[schema.SCHEMA_VERSION].split() == schema.SCHEMA.split()
    assert sorted(schema.MIGRATIONS) == sorted(RELEASED)[:-1]


async def test_a_step_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step keeps the entries, and the next start does not take it again."""
    await stored(tmp_path)
    current = next_schema(monkeypatch, STEP)
    for _ in range(2):
        index = opened(tmp_path)
        assert index.load(KEY) is not None
        await index.close(Changes())
        assert version(tmp_path) == current + 1


@pytest.mark.parametrize(
    ("fails", "message"),
    [("INSERT INTO no_such_table VALUES (1)", "no_such_table"), ("INSERT INTO state VALUES ('bytes', 1)", "UNIQUE")],
)
async def test_a_step_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, message: str
) -> None:
    """The transaction of a failing step is undone as a whole, and the earlier bucketfront can use the index."""
    await stored(tmp_path)
    with monkeypatch.context() as patched:
        current = next_schema(patched, f"{STEP}; {fails}")
        with pytest.raises(StoreError, match=message):
            opened(tmp_path)
    assert version(tmp_path) == current
    index = opened(tmp_path)
    assert index.load(KEY) is not None
    await index.close(Changes())


async def test_a_kill_in_the_step_to_tags(tmp_path: Path) -> None:
    """A kill at any point of the step from 2 to 3 leaves the index as it was, and the next start takes the step (I14).

    The step reads no row, so it takes as long with many rows as with one.
    """
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        database.executescript(RELEASED[2])
        database.executemany("INSERT INTO state VALUES (?, ?)", [("boot", 0), ("block_size", BLOCK)])
        details = '{"age": 0, "headers": [["x-amz-meta-cache-tag", "a b"]], "last_modified": null}'
        database.execute(
            "INSERT INTO entries VALUES (7, 'one', ?, ?, ?, '\"1\"', 5, ?, 1, 2, 3, 4096, 0)",
            (KEY.bucket, KEY.key.encode(), f"{7:026d}", details),
        )
        database.execute("PRAGMA user_version = 2")
        database.commit()
        for count in range(1, schema.MIGRATIONS[2].count(";") + 2):
            script = f"BEGIN IMMEDIATE; {';'.join(schema.MIGRATIONS[2].split(';')[:count])};"
            with closing(sqlite3.connect(tmp_path / "index.db")) as killed, suppress(sqlite3.Error):
                killed.executescript(script)
            assert database.execute("PRAGMA user_version").fetchone() == (2,)
    index = Index(tmp_path / "index.db", "one", block_size=BLOCK, tag_fields=TagFields(["x-amz-meta-cache-tag"]))
    index.open()
    assert [row.key for page in index.tagged("a", (), 9) for row in page] == []
    assert not await index.tag_rows(9)
    assert [row.key for page in index.tagged("a", (), 9) for row in page] == [KEY]
    await index.close(Changes(removed=(7,)))
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        assert database.execute("SELECT count(*) FROM tags").fetchone() == (0,)


@pytest.mark.parametrize("has_damage_note", [False, True])
async def test_a_newer_schema_is_left_untouched(tmp_path: Path, *, has_damage_note: bool) -> None:
    """The start fails with the remedy in its message, and no byte in the folder changes."""
    await stored(tmp_path)
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        database.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    if has_damage_note:
        (tmp_path / "index.db-damaged").touch()
    before = contents(tmp_path)
    with pytest.raises(IndexTooNew, match=rf"schema {schema.SCHEMA_VERSION + 1}.*upgrade bucketfront"):
        opened(tmp_path)
    assert contents(tmp_path) == before


async def test_a_reader_says_who_migrates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bucketfront verify` changes no schema: it names the start that does, or the upgrade."""
    await stored(tmp_path)
    with monkeypatch.context() as patched:
        next_schema(patched, STEP)
        with pytest.raises(StoreError, match="next start of the proxy"):
            Index(tmp_path / "index.db", "one", block_size=BLOCK).open_to_read()
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION - 1)
    with pytest.raises(IndexTooNew):
        Index(tmp_path / "index.db", "one", block_size=BLOCK).open_to_read()
