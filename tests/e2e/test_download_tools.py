"""Programs that fetch files: whole, in parts, resumed and slow."""

from pathlib import Path

from case import Case
from fakes import object_bytes
from programs import installed, run
from site_under_test import Site

SIZE = 20 << 20
PART = 8 << 20


def test_curl_resumes(site: Site, case: Case, tmp_path: Path) -> None:
    """Curl finishes a download that was broken off, and the file is the object (I1, I3)."""
    curl = installed("curl")
    case.of(curl, "`-C -` after a broken download")
    data = object_bytes(SIZE)
    url = site.store("file", data)
    kept = tmp_path / "file"
    kept.write_bytes(data[: SIZE // 3])
    run(curl.path, "-sSf", "-C", "-", "-o", "file", url, folder=tmp_path)
    assert kept.read_bytes() == data
    case.count(site)
    assert case.sent <= 1.1 * SIZE
