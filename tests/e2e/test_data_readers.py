"""Readers of columns, arrays and rasters, which fetch an index and then the parts that they need.

Each program computes the same values from the URL and from the local file. The origin sends at most what a share of the
file allows.
"""

import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import installs
import pytest
from case import Case
from fakes import object_bytes
from programs import Program, installed, run
from site_under_test import Site

KIB = 1 << 10
MIB = 1 << 20
BLOCK = 32 * KIB  # the default of `cache.block_size`

PYARROW = "pyarrow==26.0.1"
POLARS = "polars==2.1.0"
DUCKDB = "duckdb==1.5.5"
HTTPFS = "duckdb-extension-httpfs==1.5.5"
FSSPEC = "fsspec==2026.9.0"
ZARR = "zarr==3.1.6"  # with numpy
H5PY = "h5py==3.16.0"
WITH_DEPENDENCIES = {POLARS, ZARR}


@dataclass(frozen=True, slots=True)
class Python:
    """Python with some packages, the first of which is the client."""

    packages: tuple[str, ...]
    folder: Path

    @property
    def program(self) -> Program:
        name, _, version = self.packages[0].partition("==")
        return Program(name, sys.executable, version)

    def __call__(self, script: str, *arguments: str) -> list[object]:
        """Run a script, and return the values that it prints as JSON, one a line."""
        paths = [str(installs.pip(package, dependencies=package in WITH_DEPENDENCIES)) for package in self.packages]
        environment = {"PYTHONPATH": os.pathsep.join(paths)}
        done = run(sys.executable, "-c", script, *arguments, folder=self.folder, environment=environment)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., Python]:
    return lambda *packages: Python(packages, tmp_path)


TABLE = """
import random, sys
import pyarrow as pa, pyarrow.parquet as pq
random.seed(7)
n = 400_000
table = pa.table({
    "number": list(range(n)),
    "noise": [random.random() for _ in range(n)],
    "text": [f"{random.getrandbits(64):x}" for _ in range(n)],
})
pq.write_table(table, sys.argv[1], row_group_size=n // 16, compression="none")
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Parquet file of 16 row groups with columns `number`, `noise` and `text`."""
    folder = tmp_path_factory.mktemp("table")
    Python((PYARROW,), folder)(TABLE, "table.parquet")
    return folder / "table.parquet"


def test_duckdb(site: Site, case: Case, python: Callable[..., Python], table: Path) -> None:
    """DuckDB's httpfs finds what is in the local file, and of a filter on one column it fetches only a share."""
    duckdb = python(DUCKDB, HTTPFS)
    case.of(duckdb.program, "httpfs: one column of one row group, then all of a Parquet file")
    url = site.store("table.parquet", table.read_bytes())
    script = """
import glob, json, sys
import duckdb, duckdb_extension_httpfs
place = duckdb_extension_httpfs.__path__[0]
connection = duckdb.connect()
connection.execute(f"LOAD '{glob.glob(place + '/extensions/*/httpfs.duckdb_extension')[0]}'")
(row,) = connection.execute(sys.argv[2].replace("TABLE", sys.argv[1])).fetchall()
print(json.dumps([str(cell) for cell in row]))
"""
    few = "SELECT sum(noise), count(*) FROM 'TABLE' WHERE number BETWEEN 200000 AND 200100"
    assert duckdb(script, url, few) == duckdb(script, str(table), few)
    case.count(site)
    assert case.sent <= table.stat().st_size // 4
    every = (
        "SELECT count(*), sum(number), min(noise), max(text), md5(string_agg(text, ',' ORDER BY number)) FROM 'TABLE'"
    )
    assert duckdb(script, url, every) == duckdb(script, str(table), every)
    assert site.origin_bytes() <= 1.1 * table.stat().st_size


def test_pyarrow(site: Site, case: Case, python: Callable[..., Python], table: Path) -> None:
    """PyArrow reads a row group and then the table over fsspec, and both are those of the local file."""
    pyarrow = python(PYARROW, FSSPEC)
    case.of(pyarrow.program, "a row group and then all of a Parquet file over fsspec")
    url = site.store("table.parquet", table.read_bytes())
    script = """
import hashlib, json, sys
import fsspec, pyarrow.parquet as pq
def digest(table):
    return hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()
with fsspec.open(sys.argv[1], "rb", **json.loads(sys.argv[2])) as file:
    found = pq.ParquetFile(file)
    group = found.read_row_group(9, columns=["noise"])
    print(json.dumps([found.num_row_groups, digest(group)]))
    if sys.argv[3] == "all":
        print(json.dumps(digest(found.read())))
"""
    plain = json.dumps({"cache_type": "none"})
    assert pyarrow(script, url, plain, "few") == pyarrow(script, str(table), "{}", "few")
    case.count(site)
    assert case.sent <= table.stat().st_size // 4
    assert pyarrow(script, url, "{}", "all") == pyarrow(script, str(table), "{}", "all")
    assert site.origin_bytes() <= 1.1 * table.stat().st_size


def test_polars(site: Site, case: Case, python: Callable[..., Python], table: Path) -> None:
    """Polars scans a Parquet file with its own HTTP client, and finds what is in the local file."""
    polars = python(POLARS)
    case.of(polars.program, "`scan_parquet` of a URL: a filter, then all")
    url = site.store("table.parquet", table.read_bytes())
    script = """
import json, sys
import polars as pl
frame = pl.scan_parquet(sys.argv[1])
if sys.argv[2] == "few":
    frame = frame.filter(pl.col("number").is_between(200_000, 200_100)).select("noise")
print(json.dumps(frame.collect().hash_rows().sum()))
"""
    assert polars(script, url, "few") == polars(script, str(table), "few")
    case.count(site)
    assert case.sent <= table.stat().st_size // 4
    assert polars(script, url, "all") == polars(script, str(table), "all")
    assert site.origin_bytes() <= 1.1 * table.stat().st_size


def test_fsspec_small_reads(site: Site, case: Case, python: Callable[..., Python], tmp_path: Path) -> None:
    """Kilobytes all over a large object cost their blocks at the origin, each block once, and are right (I1)."""
    fsspec = python(FSSPEC)
    case.of(fsspec.program, "200 random reads of 1 KiB of an object of 80 MiB")
    block = object_bytes(MIB)
    data = b"".join(bytes([number]) + block for number in range(1, 81))
    url = site.store("data", data)
    offsets = random.Random(5).sample(range(len(data) - KIB), 200)
    script = """
import json, sys
import fsspec
with fsspec.open(sys.argv[1], "rb", cache_type="none") as file:
    for offset in json.loads(sys.argv[2]):
        file.seek(offset)
        print(json.dumps(file.read(1024).hex()))
"""
    assert fsspec(script, url, json.dumps(offsets)) == [data[offset : offset + KIB].hex() for offset in offsets]
    case.count(site)
    touched = {at // BLOCK for offset in offsets for at in (offset, offset + KIB - 1)}
    assert case.sent <= BLOCK * len(touched)


def test_fsspec(site: Site, case: Case, python: Callable[..., Python]) -> None:
    """Fsspec finds size and absence, and its concurrent ranges and whole reads are right (I1)."""
    fsspec = python(FSSPEC)
    case.of(fsspec.program, "size, absence, ranges at once, several objects at once")
    data = object_bytes(5 * MIB)
    url = site.store("data", data)
    others = [site.store(f"small-{number}", bytes([number]) * 1000) for number in range(20)]
    script = """
import hashlib, json, sys
import fsspec
fs = fsspec.filesystem("http")
url, others = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps(fs.info(url)["size"]))
starts = list(range(0, 5 << 20, 300_000))
parts = fs.cat_ranges([url] * len(starts), starts, [start + 1000 for start in starts])
print(json.dumps([part.hex() for part in parts]))
print(json.dumps(hashlib.sha256(fs.cat(url)).hexdigest()))
print(json.dumps({name: content.hex() for name, content in fs.cat(others).items()}))
print(json.dumps([fs.exists(url), fs.exists(url + "-none")]))
"""
    starts = range(0, 5 * MIB, 300_000)
    assert fsspec(script, url, json.dumps(others)) == [
        len(data),
        [data[start : start + 1000].hex() for start in starts],
        hashlib.sha256(data).hexdigest(),
        {other: (bytes([number]) * 1000).hex() for number, other in enumerate(others)},
        [True, False],
    ]
    case.count(site)
    assert case.sent <= 1.1 * (len(data) + 20 * 1000)


SIDE = 2048


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a cloud-optimised GeoTIFF of random pixels."""
    translate = installed("gdal_translate", "gdal-bin")
    folder = tmp_path_factory.mktemp("raster")
    (folder / "raw").write_bytes(object_bytes(SIDE * SIDE * 3))
    (folder / "raw.hdr").write_text(
        f"ENVI\nsamples = {SIDE}\nlines = {SIDE}\nbands = 3\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
    )
    run(translate.path, "-q", "-of", "COG", "-co", "COMPRESS=NONE", "raw", "image.tif", folder=folder)
    return folder / "image.tif"


def test_gdal(site: Site, case: Case, raster: Path, tmp_path: Path) -> None:
    """GDAL reads a window and then all of a raster by `/vsicurl/`, and both are those of the local file."""
    gdalinfo, translate = installed("gdalinfo", "gdal-bin"), installed("gdal_translate", "gdal-bin")
    case.of(Program("GDAL", gdalinfo.path, gdalinfo.version), "`/vsicurl/`: a window of a COG, then all of it")
    url = site.store("image.tif", raster.read_bytes(), ContentType="image/tiff")
    size = raster.stat().st_size
    window = ("-q", "-srcwin", "1000", "700", "64", "64", "-of", "ENVI")
    run(translate.path, *window, f"/vsicurl/{url}", "remote", folder=tmp_path)
    run(translate.path, *window, str(raster), "local", folder=tmp_path)
    assert (tmp_path / "remote").read_bytes() == (tmp_path / "local").read_bytes()
    case.count(site)
    assert case.sent <= size // 4
    (remote, local) = (
        [
            line
            for line in run(gdalinfo.path, "-checksum", name, folder=tmp_path).output.splitlines()
            if "Checksum" in line
        ]
        for name in (f"/vsicurl/{url}", str(raster))
    )
    assert remote == local
    assert len(local) == 3
    assert site.origin_bytes() <= 1.1 * size


def test_zarr(site: Site, case: Case, python: Callable[..., Python], tmp_path: Path) -> None:
    """Zarr reads an array of many objects, and takes one that is absent for its fill value."""
    zarr = python(ZARR, FSSPEC)
    case.of(zarr.program, "an array of 64 chunks over fsspec, some of them absent")
    made = """
import numpy, zarr
array = zarr.create_array("array", shape=(800, 800), chunks=(100, 100), dtype="i4", fill_value=-1)
array[:, :700] = numpy.arange(800 * 700).reshape(800, 700)
"""
    zarr(made)
    files = [path for path in (tmp_path / "array").rglob("*") if path.is_file()]
    for path in files:
        site.store(str(path.relative_to(tmp_path)), path.read_bytes())
    assert len(files) == 1 + 56
    script = """
import hashlib, json, sys
import zarr
array = zarr.open_array(sys.argv[1], mode="r")
print(json.dumps([array.shape, int(array[799, 650]), int(array[5, 777])]))
print(json.dumps(array[150:420, 600:].tolist()))
print(json.dumps(hashlib.sha256(array[:].tobytes()).hexdigest()))
"""
    assert zarr(script, site.url_of("array")) == zarr(script, "array")
    case.count(site)
    assert case.sent <= 1.1 * sum(path.stat().st_size for path in files)


def test_h5py(site: Site, case: Case, python: Callable[..., Python], tmp_path: Path) -> None:
    """h5py reads a slice of a data set over fsspec, and then all of it, as of the local file."""
    h5py = python(H5PY, ZARR, FSSPEC)
    case.of(h5py.program, "a slice and then all of an HDF5 file over fsspec")
    h5py("""
import h5py, numpy
with h5py.File("data.h5", "w") as file:
    values = numpy.random.default_rng(3).random((1000, 1000))
    file.create_dataset("values", data=values, chunks=(100, 100))
""")
    local = tmp_path / "data.h5"
    url = site.store("data.h5", local.read_bytes())
    script = """
import hashlib, json, sys
import fsspec, h5py
with fsspec.open(sys.argv[1], "rb", **json.loads(sys.argv[2])) as opened, h5py.File(opened) as file:
    values = file["values"]
    part = values[450:460, 720] if sys.argv[3] == "few" else values[:]
    print(json.dumps(hashlib.sha256(part.tobytes()).hexdigest()))
"""
    plain = json.dumps({"cache_type": "none"})
    assert h5py(script, url, plain, "few") == h5py(script, str(local), "{}", "few")
    case.count(site)
    assert case.sent <= local.stat().st_size // 4
    assert h5py(script, url, "{}", "all") == h5py(script, str(local), "{}", "all")
    assert site.origin_bytes() <= 1.1 * local.stat().st_size
