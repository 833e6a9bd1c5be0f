"""Record what programs that read data request of a server, as the traces of `bench/data_traces`.

    pip install pyarrow polars duckdb duckdb-extension-httpfs fsspec aiohttp zarr h5py rasterio s3fs
    python bench/data_recorder.py [NAME]...

It makes the data in a temporary folder, by fixed seeds, and serves it on loopback by HTTP and as path-style S3. Each
program runs in a process of its own.
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from data_trace import DataTrace, Request

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
PIECE_BYTES = 256 << 10


@dataclass(slots=True)
class Recording:
    """The requests that have come, and how many of them have ended."""

    folder: Path
    names: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    ended: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, method: str, name: str, range_: str | None) -> None:
        with self.lock:
            if name not in self.names:
                self.names.append(name)
            self.requests.append(Request(method, self.names.index(name), range_, self.ended))

    def end(self) -> None:
        with self.lock:
            self.ended += 1

    def size(self, name: str) -> int | None:
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None


class Server(ThreadingHTTPServer):
    """Serves the files of `recording.folder` at `/data/`."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.recording = Recording(folder)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._respond(self.command)

    def do_HEAD(self) -> None:
        self._respond(self.command)

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _respond(self, method: str) -> None:
        recording = self.server.recording
        path = self.path.partition("?")[0]
        name = path.removeprefix("/data/")
        asked = self.headers.get("Range")
        recording.begin(method, name, None if asked is None else asked.removeprefix("bytes="))
        try:
            self._send(recording.folder / name, recording.size(name), asked, with_body=method == "GET")
        finally:
            recording.end()

    def _send(self, path: Path, size: int | None, asked: str | None, *, with_body: bool) -> None:
        if size is None:
            self.send_response(HTTPStatus.NOT_FOUND)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = 0, size
        if asked is not None:
            found = _RANGE.fullmatch(asked)
            assert found is not None, asked
            first, last = found.groups()
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
        self.send_response(HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT)
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        self.end_headers()
        if with_body:
            with path.open("rb") as file:
                file.seek(start)
                while start < stop:
                    start += self.wfile.write(file.read(min(PIECE_BYTES, stop - start)))


# --- the data: each function runs in a process of its own ------------------------------------------------------

RIDES = """
import numpy, pyarrow, pyarrow.parquet
chance = numpy.random.default_rng(1)
count = 3 << 20
columns = {
    "id": numpy.arange(count), "time": numpy.sort(chance.integers(0, 10**9, count)),
    "vendor": chance.integers(0, 5, count).astype("i1"), "passengers": chance.integers(1, 6, count).astype("i1"),
    "distance": chance.gamma(2, 3, count), "fare": chance.gamma(3, 5, count).round(2),
    "tip": chance.gamma(1, 2, count).round(2), "from": chance.integers(0, 265, count).astype("i2"),
    "to": chance.integers(0, 265, count).astype("i2"), "x": chance.normal(size=count), "y": chance.normal(size=count),
    "note": [f"{value:x}" for value in chance.integers(0, 1 << 40, count)],
}
table = pyarrow.table(columns)
pyarrow.parquet.write_table(table, "rides.parquet", compression="zstd")
pyarrow.parquet.write_table(table, "narrow.parquet", compression="zstd", row_group_size=122_880)
"""
RASTERS = """
import numpy, rasterio, rasterio.shutil
from rasterio.transform import from_origin
side = 8192
chance = numpy.random.default_rng(2)
slope = numpy.add.outer(numpy.arange(side), numpy.arange(side))
def write(name, bands, dtype, **options):
    profile = dict(driver="MEM", width=side, height=side, count=len(bands), dtype=dtype, crs="EPSG:32631",
                   transform=from_origin(5e5, 5e6, 10, 10))
    with rasterio.open("", "w", **profile) as source:
        for number, band in enumerate(bands, 1):
            source.write(band, number)
        rasterio.shutil.copy(source, name, driver="COG", **options)
heights = (slope // 8 + chance.integers(0, 256, (side, side))).astype("u2")
write("scene.tif", [heights], "uint16", compress="deflate", predictor=2)
colours = [((slope // shift + chance.integers(0, 24, (side, side))) % 256).astype("u1") for shift in (3, 5, 7)]
write("photo.tif", colours, "uint8", compress="jpeg", quality=85)
"""
ARRAYS = """
import h5py, numpy, zarr
chance = numpy.random.default_rng(3)
values = numpy.cumsum(chance.normal(size=(48, 1024, 1024)).astype("f4"), axis=0)
zarr.create_array("chunks.zarr", data=values, chunks=(8, 256, 256))
zarr.create_array("shards.zarr", data=values, chunks=(4, 128, 128), shards=(16, 1024, 1024))
with h5py.File("values.h5", "w") as file:
    file.create_dataset("values", data=values, chunks=(8, 128, 128), compression="gzip", shuffle=True)
"""
NOISE = """
import pathlib, random
pathlib.Path("noise").write_bytes(random.Random(4).randbytes(100_000_000))
"""

# --- the programs. {http} is the URL of the data, {s3} the endpoint of its bucket `data` ------------------------

_DUCKDB = """
import glob, duckdb, duckdb_extension_httpfs
connection = duckdb.connect()
place = duckdb_extension_httpfs.__path__[0]
connection.execute(f"LOAD '{glob.glob(place + '/extensions/*/httpfs.duckdb_extension')[0]}'")
connection.execute("SET threads = 4")
"""
_RASTERIO = """
import os, random
os.environ.update(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", **{options})
import rasterio
from rasterio.windows import Window
chance = random.Random(6)
with rasterio.open("/vsicurl/{http}{file}") as raster:
"""
_VIEWS = """
    for _ in range(16):
        zoom = chance.choice((1, 1, 2, 4))
        side = 512 * zoom
        at = chance.randrange(8192 - side), chance.randrange(8192 - side)
        raster.read(window=Window(*at, side, side), out_shape=(raster.count, 512, 512))
"""
_POINTS = """
    for _ in range(60):
        raster.read(1, window=Window(chance.randrange(8192), chance.randrange(8192), 1, 1))
"""
_PYARROW_S3 = """
import pyarrow.fs, pyarrow.parquet, pyarrow.dataset
files = pyarrow.fs.S3FileSystem(
    access_key="x", secret_key="y", endpoint_override="{s3}", scheme="http", region="us-east-1")
"""
_S3FS = """
import s3fs
files = s3fs.S3FileSystem(key="x", secret="y", endpoint_url="http://{s3}")
"""
_H5PY = """
import fsspec, h5py
with fsspec.open("{http}values.h5", "rb"{cache}) as opened, h5py.File(opened) as file:
    values = file["values"]
    for at in (3, 500, 900):
        values[:, at, at]
    values[20, 100:700, 300:900]
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A program that reads. `packages` are named with their versions, the first one is the reader."""

    packages: tuple[str, ...]
    what: str
    script: str


CASES = {
    "duckdb-columns": Case(
        ("duckdb", "duckdb-extension-httpfs"), "two columns of all row groups of a Parquet file",
        _DUCKDB + """connection.execute("SELECT sum(fare), max(tip) FROM '{http}rides.parquet'").fetchall()""",
    ),
    "duckdb-filter": Case(
        ("duckdb", "duckdb-extension-httpfs"), "a filter that leaves few row groups of 122,880 rows",
        _DUCKDB + """connection.execute("SELECT avg(fare), max(note) FROM '{http}narrow.parquet'"""
        """ WHERE id BETWEEN 700000 AND 1000000").fetchall()""",
    ),
    "duckdb-all": Case(
        ("duckdb", "duckdb-extension-httpfs"), "all columns of a Parquet file",
        _DUCKDB + """connection.execute("SELECT max(COLUMNS(*)) FROM '{http}narrow.parquet'").fetchall()""",
    ),
    "polars-filter": Case(
        ("polars",), "a filter and three columns by `scan_parquet`",
        "import polars as pl\n"
        """pl.scan_parquet("{http}narrow.parquet").filter(pl.col("id").is_between(700_000, 1_000_000))"""
        """.select("fare", "x", "note").collect()""",
    ),
    "polars-columns": Case(
        ("polars",), "two columns of all row groups by `scan_parquet`",
        """import polars as pl\npl.scan_parquet("{http}narrow.parquet").select("fare", "vendor").sum().collect()""",
    ),
    "polars-neighbours": Case(
        ("polars",), "a filter and two columns that are neighbours in the file, by `scan_parquet`",
        "import polars as pl\n"
        """pl.scan_parquet("{http}narrow.parquet").filter(pl.col("id") % 4 == 0).select("x", "y").sum().collect()""",
    ),
    "pyarrow-unbuffered": Case(
        ("pyarrow",), "three columns that are neighbours over `S3FileSystem`, with its pre-buffering off",
        _PYARROW_S3 + """pyarrow.parquet.read_table("data/narrow.parquet", filesystem=files, pre_buffer=False,"""
        """ columns=["fare", "tip", "from"])""",
    ),
    "pyarrow-s3-columns": Case(
        ("pyarrow",), "three columns over `S3FileSystem`, by `read_table`",
        _PYARROW_S3 + """pyarrow.parquet.read_table("data/narrow.parquet", filesystem=files,"""
        """ columns=["time", "fare", "to"])""",
    ),
    "pyarrow-s3-groups": Case(
        ("pyarrow",), "four row groups in random order over `S3FileSystem`",
        _PYARROW_S3 + """
with files.open_input_file("data/narrow.parquet") as opened:
    file = pyarrow.parquet.ParquetFile(opened)
    for group in (17, 3, 22, 9):
        file.read_row_group(group, columns=["x", "y"])
""",
    ),
    "pyarrow-fsspec": Case(
        ("pyarrow", "fsspec"), "two columns of a Parquet file over fsspec's HTTP",
        """
import fsspec, pyarrow.parquet
with fsspec.open("{http}rides.parquet", "rb") as file:
    pyarrow.parquet.ParquetFile(file).read(columns=["tip", "note"])
""",
    ),
    "s3fs-columns": Case(
        ("s3fs", "pyarrow"), "two columns of a Parquet file over s3fs without its cache",
        _S3FS + """
import pyarrow.parquet
with files.open("data/narrow.parquet", cache_type="none") as file:
    pyarrow.parquet.ParquetFile(file).read(columns=["from", "distance"])
""",
    ),
    "gdal-views": Case(
        ("rasterio",), "16 views of 512 x 512 pixels of a COG (deflate, 16 bits) at several zooms",
        _RASTERIO.replace("{options}", "{}").replace("{file}", "scene.tif") + _VIEWS,
    ),
    "gdal-views-merged": Case(
        ("rasterio",),
        "16 views of 512 x 512 pixels of the COG of 16 bits with the options that GDAL recommends for COGs",
        _RASTERIO.replace(
            "{options}",
            '{"GDAL_INGESTED_BYTES_AT_OPEN": "32768", "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",'
            ' "VSI_CACHE": "TRUE"}',
        ).replace("{file}", "scene.tif") + _VIEWS,
    ),
    "gdal-photo": Case(
        ("rasterio",), "16 views of 512 x 512 pixels of a COG (JPEG, RGB)",
        _RASTERIO.replace("{options}", "{}").replace("{file}", "photo.tif") + _VIEWS,
    ),
    "gdal-points": Case(
        ("rasterio",), "60 random pixels of a COG (deflate, 16 bits)",
        _RASTERIO.replace("{options}", "{}").replace("{file}", "scene.tif") + _POINTS,
    ),
    "zarr-chunks": Case(
        ("zarr", "fsspec"), "a slice of an array of many objects",
        """import zarr\nzarr.open_array("{http}chunks.zarr", mode="r")[10:30, 300:700, 100:900]""",
    ),
    "zarr-series": Case(
        ("zarr", "fsspec"), "the series at five places of an array of many objects",
        """
import zarr
array = zarr.open_array("{http}chunks.zarr", mode="r")
for at in (5, 300, 700, 900, 1000):
    array[:, at, at]
""",
    ),
    "zarr-shards": Case(
        ("zarr", "fsspec"), "slices of an array of shards, each with its index at the end",
        """
import zarr
array = zarr.open_array("{http}shards.zarr", mode="r")
array[20, 300:700, 100:900]
for at in (5, 300, 700):
    array[:, at, at]
""",
    ),
    "zarr-shards-pairs": Case(
        ("zarr", "fsspec"), "small squares of an array of shards, each over chunks that are neighbours",
        """
import random, zarr
chance = random.Random(8)
array = zarr.open_array("{http}shards.zarr", mode="r")
for _ in range(16):
    at, row, column = chance.randrange(48), chance.randrange(8) * 128, chance.randrange(7) * 128
    array[at, row : row + 128, column + 100 : column + 160]
""",
    ),
    "gdal-strips": Case(
        ("rasterio",), "eight rows of a COG (deflate, 16 bits), in four threads",
        _RASTERIO.replace("{options}", '{"GDAL_NUM_THREADS": "4"}').replace("{file}", "scene.tif") + """
    for _ in range(8):
        raster.read(1, window=Window(chance.randrange(4096), chance.randrange(8192), 3000, 1))
""",
    ),
    "h5py": Case(
        ("h5py", "fsspec"), "series and a slice of an HDF5 file over fsspec",
        _H5PY.replace("{cache}", ""),
    ),
    "h5py-uncached": Case(
        ("h5py", "fsspec"), "series and a slice of an HDF5 file without fsspec's own cache",
        _H5PY.replace("{cache}", ', cache_type="none"')
    ),
    "fsspec-random": Case(
        ("fsspec",), "200 random reads of 1 KiB without a cache of fsspec",
        """
import random, fsspec
chance = random.Random(5)
with fsspec.open("{http}noise", "rb", cache_type="none") as file:
    for _ in range(200):
        file.seek(chance.randrange(99_000_000))
        file.read(1024)
""",
    ),
    "fsspec-blocks": Case(
        ("fsspec",), "60 random reads of 1 KiB with fsspec's block cache of 64 KiB",
        """
import random, fsspec
chance = random.Random(5)
with fsspec.open("{http}noise", "rb", cache_type="blockcache", block_size=64 << 10) as file:
    for _ in range(60):
        file.seek(chance.randrange(99_000_000))
        file.read(1024)
""",
    ),
}  # fmt: skip


def make_data(folder: Path) -> None:
    for script in (RIDES, RASTERS, ARRAYS, NOISE):
        _run(script, folder)


def record(name: str, case: Case, folder: Path) -> DataTrace:
    """Run a program, and return its requests."""
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{server.address}/data/"
        _run(case.script.replace("{http}", url).replace("{s3}", server.address), folder)
        server.shutdown()
        recording = server.recording
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in case.packages)
    sizes = [recording.size(each) for each in recording.names]
    return DataTrace(name, versions, case.what, sizes, recording.requests)


def _run(script: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(CASES)}; all without a name")
    parser.add_argument("--data", type=Path, help="a folder that keeps the data for the next run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.data or Path(temporary)
        if not any(folder.iterdir()):
            make_data(folder)
        for name in given.names or CASES:
            trace = record(name, CASES[name], folder)
            trace.save()
            print(f"{name}: {len(trace.requests)} requests of {len(trace.sizes)} objects")


if __name__ == "__main__":
    main()
