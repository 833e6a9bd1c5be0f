"""Readers and writers of tables, and file systems, at the S3 endpoint.

Each one computes the same from the object as from the local file, and what it wrote is what the origin has.
"""

from pathlib import Path

import pytest
from case import Case
from client_packages import DELTALAKE, DUCKDB, HTTPFS, POLARS, PYARROW, S3FS, named, python
from fakes import object_bytes
from signed_endpoint import REGION, SignedEndpoint
from site_under_test import BUCKET, Site

MIB = 1 << 20
SIZE = 17 * MIB + 3
ROWS = 400_000

TABLE = f"""
import random
import pyarrow as pa, pyarrow.parquet as pq
random.seed(7)
n = {ROWS}
table = pa.table({{
    "number": list(range(n)),
    "noise": [random.random() for _ in range(n)],
    "text": [f"{{random.getrandbits(64):x}}" for _ in range(n)],
}})
pq.write_table(table, "table.parquet", row_group_size=n // 16, compression="none")
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Parquet file of 16 row groups with columns `number`, `noise` and `text`."""
    folder = tmp_path_factory.mktemp("table")
    python(folder, (PYARROW,), TABLE, environment={})
    return folder / "table.parquet"


# --- file systems ---------------------------------------------------------------------------------------------

S3FS_SCRIPT = """
import json, sys
import s3fs
endpoint, at = sys.argv[1:]
files = s3fs.S3FileSystem(endpoint_url=endpoint, default_block_size=5 << 20)
def show(value): print(json.dumps(value))
files.put_file("data", f"{at}/large", chunksize=5 << 20)
files.get_file(f"{at}/large", "back")
files.put("up", f"{at}/tree", recursive=True)
files.get(f"{at}/tree", "down", recursive=True)
with files.open(f"{at}/written", "wb") as file:
    for number in range(3):
        file.write(bytes([65 + number]) * (3 << 20))
with files.open(f"{at}/written", "rb") as file:
    file.seek(3 << 20)
    show(file.read(3).decode())
files.pipe(f"{at}/piped", b"one")
show(files.cat(f"{at}/piped").decode())
files.pipe(f"{at}/piped", b"two")
show(files.cat(f"{at}/piped").decode())
show(sorted(name.removeprefix(f"{at}/") for name in files.find(at)))
files.mv(f"{at}/piped", f"{at}/moved")
show([files.exists(f"{at}/piped"), files.exists(f"{at}/moved"), files.info(f"{at}/large")["size"]])
show(files.glob(f"{at}/m*") == [f"{at}/moved"])
files.rm(at, recursive=True)
"""


def test_s3fs(place: Site, case: Case, endpoint: SignedEndpoint, tmp_path: Path) -> None:
    """S3fs copies folders in both directions, writes in parts, reads what it wrote, lists, moves and removes."""
    case.of(named(S3FS), "`put` and `get` of folders, `open`, `pipe`, `cat`, `find`, `glob`, `mv`, `rm`")
    data = object_bytes(SIZE)
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "up" / "deeper").mkdir(parents=True)
    (tmp_path / "up" / "deeper" / "ä +b").write_bytes(b"odd")
    at = f"{BUCKET}/{place.folder}"
    found = python(tmp_path, (S3FS,), S3FS_SCRIPT, endpoint.url, at, environment=endpoint.environment)
    names = ["large", "piped", "tree/deeper/ä +b", "written"]
    assert found == ["BBB", "one", "two", names, [False, True, SIZE], True]
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "down" / "deeper" / "ä +b").read_bytes() == b"odd"
    assert place.names() == []


PYARROW_SCRIPT = """
import hashlib, json, sys
import pyarrow.dataset as ds, pyarrow.fs as fs, pyarrow.parquet as pq
host, region, at = sys.argv[1:]
def show(value): print(json.dumps(value))
files = fs.S3FileSystem(endpoint_override=host, scheme="http", region=region)
local = pq.read_table("table.parquet")
ds.write_dataset(local, f"{at}/set", filesystem=files, format="parquet", max_rows_per_file=100_000,
                 max_rows_per_group=25_000)
for _ in range(2):
    found = ds.dataset(f"{at}/set", filesystem=files, format="parquet")
    show([found.count_rows(), found.to_table().sort_by("number").equals(local.sort_by("number"))])
    few = found.to_table(columns=["noise"], filter=ds.field("number") == 200_050)
    show(few["noise"].to_pylist() == local["noise"].slice(200_050, 1).to_pylist())
with files.open_output_stream(f"{at}/stream") as stream:
    for number in range(4):
        stream.write(bytes([65 + number]) * (4 << 20))
with files.open_input_file(f"{at}/stream") as file:
    show([file.size(), file.read_at(3, 4 << 20).decode()])
files.copy_file(f"{at}/stream", f"{at}/copy")
show(sorted(info.base_name for info in files.get_file_info(fs.FileSelector(at))))
files.delete_dir(at)
show(files.get_file_info(f"{at}/copy").type == fs.FileType.NotFound)
"""


def test_pyarrow(place: Site, case: Case, endpoint: SignedEndpoint, table: Path, tmp_path: Path) -> None:
    """PyArrow writes a data set with the AWS SDK for C++, and reads of it what it wrote, twice the same."""
    case.of(named(PYARROW, "PyArrow (AWS SDK for C++)"), "`S3FileSystem`: a data set written and read, streams, copies")
    (tmp_path / "table.parquet").symlink_to(table)
    at = f"{BUCKET}/{place.folder}"
    arguments = (endpoint.host, REGION, at)
    found = python(tmp_path, (PYARROW,), PYARROW_SCRIPT, *arguments, environment=endpoint.environment)
    assert found == [
        *[[ROWS, True], True] * 2,
        [16 * MIB, "BBB"],
        ["copy", "set", "stream"],
        True,
    ]
    assert [name for name in place.names() if name] == []


# --- tables ---------------------------------------------------------------------------------------------------

DUCKDB_SCRIPT = """
import glob, json, sys
import duckdb, duckdb_extension_httpfs
host, access_key, secret_key, region, at = sys.argv[1:]
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
place = duckdb_extension_httpfs.__path__[0]
connection.execute(f"LOAD '{glob.glob(place + '/extensions/*/httpfs.duckdb_extension')[0]}'")
connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{access_key}', SECRET '{secret_key}', ENDPOINT '{host}', "
                   f"URL_STYLE 'path', USE_SSL false, REGION '{region}')")
def all_of(query): print(json.dumps([str(cell) for row in connection.execute(query).fetchall() for cell in row]))
every = "SELECT count(*), sum(number), min(noise), max(text), md5(string_agg(text, ',' ORDER BY number)) FROM "
few = "SELECT sum(noise), count(*) FROM '{}' WHERE number BETWEEN 200000 AND 200100"
connection.execute(f"COPY (SELECT *, number % 3 AS part FROM 'table.parquet') TO 's3://{at}/parts' "
                   "(FORMAT parquet, PARTITION_BY part)")
all_of(f"{every} 's3://{at}/parts/*/*.parquet'")
all_of(f"{every} 'table.parquet'")
connection.execute(f"COPY (SELECT * FROM 'table.parquet' ORDER BY number) TO 's3://{at}/one.parquet'")
for name in ("table.parquet", f"s3://{at}/one.parquet", f"s3://{at}/one.parquet"):
    all_of(few.format(name))
connection.execute(f"COPY (SELECT 1 AS number, 2.0 AS noise, 'x' AS text) TO 's3://{at}/one.parquet'")
all_of(f"SELECT * FROM 's3://{at}/one.parquet'")
"""


def test_duckdb(place: Site, case: Case, endpoint: SignedEndpoint, table: Path, tmp_path: Path) -> None:
    """DuckDB writes partitions in parts, finds them by wildcards, and reads the same as of the local file."""
    case.of(named(DUCKDB, "DuckDB"), "httpfs with a secret: `COPY … TO` partitions, queries with `*`, an overwrite")
    (tmp_path / "table.parquet").symlink_to(table)
    at = f"{BUCKET}/{place.folder}"
    arguments = (endpoint.host, endpoint.access_key, endpoint.secret_key, REGION, at)
    found = python(tmp_path, (DUCKDB, HTTPFS), DUCKDB_SCRIPT, *arguments, environment={})
    assert found[0] == found[1]
    assert found[2] == found[3] == found[4]
    assert found[5] == ["1", "2.0", "x"]


POLARS_SCRIPT = """
import json, os, sys
import polars as pl
at = sys.argv[1]
options = {"aws_endpoint_url": os.environ["AWS_ENDPOINT_URL"], "aws_allow_http": "true"}
local = pl.read_parquet("table.parquet")
def show(value): print(json.dumps(value))
few = pl.col("number").is_between(200_000, 200_100)
for _ in range(2):
    remote = pl.scan_parquet(f"{at}/table.parquet", storage_options=options)
    show(remote.filter(few).select("noise").collect().equals(local.filter(few).select("noise")))
    show(remote.collect().equals(local))
local.lazy().filter(few).sink_parquet(f"{at}/written/few.parquet", storage_options=options)
show(pl.read_parquet(f"{at}/written/*.parquet", storage_options=options).equals(local.filter(few)))
"""


def test_polars(place: Site, case: Case, endpoint: SignedEndpoint, table: Path, tmp_path: Path) -> None:
    """Polars scans a table with a filter and as a whole, and writes one that it finds by a wildcard."""
    case.of(named(POLARS), "`scan_parquet` with a filter and whole, `sink_parquet`, `read_parquet` with `*`")
    (tmp_path / "table.parquet").symlink_to(table)
    place.store("table.parquet", table.read_bytes())
    at = f"s3://{BUCKET}/{place.folder}"
    assert python(tmp_path, (POLARS,), POLARS_SCRIPT, at, environment=endpoint.environment) == [True] * 5
    case.count(place)
    assert case.sent <= 1.1 * table.stat().st_size


DELTA_SCRIPT = """
import json, os, sys
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
at = sys.argv[1]
options = {"aws_endpoint_url": os.environ["AWS_ENDPOINT_URL"], "aws_allow_http": "true",
           "aws_conditional_put": "etag"}
def show(value): print(json.dumps(value))
def rows(): return sorted(DeltaTable(at, storage_options=options).to_pyarrow_table()["number"].to_pylist())
for number in range(3):
    write_deltalake(at, pa.table({"number": [number, number + 10]}), mode="append", storage_options=options)
    show(rows())
table = DeltaTable(at, storage_options=options)
table.delete("number >= 11")
table.optimize.compact()
table.vacuum(0, dry_run=False, enforce_retention_duration=False)
show(rows())
show(table.version())
"""


def test_delta(place: Site, case: Case, endpoint: SignedEndpoint, tmp_path: Path) -> None:
    """delta-rs commits to a table by conditional writes, and each commit is what the next reader sees (I5)."""
    case.of(named(DELTALAKE, "delta-rs"), "appends, deletes, `compact` and `vacuum` of a table")
    at = f"s3://{BUCKET}/{place.folder}/table"
    found = python(tmp_path, (DELTALAKE, PYARROW), DELTA_SCRIPT, at, environment=endpoint.environment)
    assert found == [[0, 10], [0, 1, 10, 11], [0, 1, 2, 10, 11, 12], [0, 1, 2, 10], 6]
    assert "table/_delta_log/00000000000000000006.json" in place.names()
