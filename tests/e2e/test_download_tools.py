"""Programs that fetch files: whole, in parts, resumed, slow, and of an object that is replaced in the middle."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from bucketfront_process import Running
from case import Case
from client_link import ClientLink
from fakes import object_bytes
from programs import Program, installed, run
from site_under_test import MOUNTS, Origin, Site, folder_of

SIZE = 32 << 20
PART = 8 << 20
SMALL = 3 << 20
FEW = 8  # requests to the origin besides those of the parts: lookups, the first blocks, a part that was split
BLOCK = 256 << 10
STEADY_S = 75.0  # seconds; a client that takes nothing is reset after 60
CHUNK = 4 << 20  # of wget2

Command = Callable[[Program, str], Sequence[str]]


def _rclone(*options: str) -> Command:
    def command(program: Program, url: str) -> Sequence[str]:
        folder, _, name = url.rpartition("/")
        return (program.path, "copyto", *options, "--http-url", folder, f":http:{name}", "file")

    return command


def _lftp(fetch: str, settings: str = "") -> Command:
    return lambda lftp, url: (lftp.path, "-c", f"set net:reconnect-interval-base 1; {settings} {fetch} {url} -o file")


WHOLE: dict[str, tuple[str, str, Command]] = {
    "curl": ("curl", "", lambda p, url: (p.path, "-sSf", "-o", "file", url)),
    "curl, compressed": ("curl", "", lambda p, url: (p.path, "-sSf", "--compressed", "-o", "file", url)),
    "wget": ("wget", "", lambda p, url: (p.path, "-nv", "-O", "file", url)),
    "wget2": ("wget2", "", lambda p, url: (p.path, "-nv", "-O", "file", url)),
    "wget2, chunks": (
        "wget2",
        "",
        lambda p, url: (p.path, "-nv", f"--chunk-size={CHUNK}", "--max-threads=8", "-O", "file", url),
    ),
    "aria2, 16 connections": (
        "aria2c",
        "aria2",
        lambda p, url: (p.path, "-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "-o", "file", url),
    ),
    "axel, 16 connections": ("axel", "", lambda p, url: (p.path, "-q", "-n", "16", "-o", "file", url)),
    "lftp": ("lftp", "", _lftp("get")),
    "lftp, 8 connections": ("lftp", "", _lftp("pget -n 8")),
    "rclone": ("rclone", "", _rclone("--multi-thread-streams", "0")),
    "rclone, 8 streams": ("rclone", "", _rclone("--multi-thread-streams", "8", "--multi-thread-cutoff", "1M")),
}
"""Program, its Debian package, and how it fetches a URL into the file `file`."""

RESUMED: dict[str, tuple[str, str, Command]] = {
    "curl": ("curl", "", lambda p, url: (p.path, "-sSf", "-C", "-", "-o", "file", url)),
    "wget": ("wget", "", lambda p, url: (p.path, "-nv", "-c", url)),
    "wget2": ("wget2", "", lambda p, url: (p.path, "-nv", "-c", url)),
    "aria2": ("aria2c", "aria2", lambda p, url: (p.path, "-q", "-c", "-o", "file", url)),
    "lftp": ("lftp", "", _lftp("get -c")),
}
"""How a program goes on with a file `file` that has the first part."""

SLOW: dict[str, tuple[str, str, Command]] = {
    "curl": ("curl", "", lambda p, url: (p.path, "-sSf", "--limit-rate", "1M", "-o", "file", url)),
    "wget": ("wget", "", lambda p, url: (p.path, "-nv", "--limit-rate=1M", "-O", "file", url)),
    "aria2": ("aria2c", "aria2", lambda p, url: (p.path, "-q", "--max-download-limit=1M", "-o", "file", url)),
    "axel": ("axel", "", lambda p, url: (p.path, "-q", "-n", "4", "-s", f"{1 << 20}", "-o", "file", url)),
    "lftp": ("lftp", "", _lftp("get", f"set net:limit-rate {1 << 20};")),
    "rclone": ("rclone", "", _rclone("--bwlimit", "1M")),
}


@pytest.fixture(scope="module")
def data() -> bytes:
    return object_bytes(SIZE)


@dataclass(frozen=True, slots=True)
class SteadyReader:
    """A curl that reads slowly since the module's first test. Its file grows."""

    process: "subprocess.Popen[bytes]"
    file: Path
    until: float  # by time.monotonic()


@pytest.fixture(scope="module", autouse=True)
def steady_reader(
    origin: Origin, shared_bucketfront: Running, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SteadyReader]:
    """Run it beside the other tests, because what it shows takes more than a minute."""
    curl = installed("curl")
    site = Site(origin, shared_bucketfront, folder_of("steady"))
    url = site.store("file", data)
    assert site.send("GET", "file").body == data  # so that it causes no requests in the log of the other tests
    file = tmp_path_factory.mktemp("steady") / "file"
    process = subprocess.Popen([curl.path, "-sSf", "--limit-rate", "16k", "-o", file, url])
    yield SteadyReader(process, file, time.monotonic() + STEADY_S)
    process.kill()
    process.wait()


def fetched(name: str, table: dict[str, tuple[str, str, Command]]) -> tuple[Program, Command]:
    program, package, command = table[name]
    version = ("version",) if program == "rclone" else ("--version",)
    return installed(program, package, version=version), command


def assert_bounded(case: Case, size: int, connections: int = 1) -> None:
    """Assert that the origin sent hardly more than the object, in requests that are about as large as parts.

    A range of each of several connections begins and ends in the middle of a part.
    """
    assert case.sent <= 1.1 * size + (PART if connections > 1 else 0)  # of a response that aria2 leaves for ranges
    assert case.requests <= 1.3 * size / PART + FEW + (2 * connections if connections > 1 else 0)


@pytest.mark.parametrize("name", WHOLE)
def test_whole(name: str, site: Site, case: Case, tmp_path: Path, data: bytes) -> None:
    """A program fetches an object that is not cached, by one connection or many: its bytes, once (I1, I3, I10)."""
    program, command = fetched(name, WHOLE)
    case.of(program, f"fetches 32 MiB ({name})")
    run(*command(program, site.store("file", data)), folder=tmp_path)
    assert (tmp_path / "file").read_bytes() == data
    case.count(site)
    connections = re.search(r"(\d+) (?:connections|streams)", name)
    assert_bounded(case, SIZE, int(connections[1]) if connections else SIZE // CHUNK if "chunks" in name else 1)


@pytest.mark.parametrize("name", RESUMED)
def test_resumed(name: str, site: Site, case: Case, tmp_path: Path, data: bytes) -> None:
    """A program finishes a download that was broken off, and it is fetched about once (I1, I3)."""
    program, command = fetched(name, RESUMED)
    case.of(program, f"goes on with a file ({name})")
    kept = tmp_path / "file"
    kept.write_bytes(data[: SIZE // 3])
    run(*command(program, site.store("file", data)), folder=tmp_path)
    assert kept.read_bytes() == data
    case.count(site)
    assert case.requests <= SIZE // BLOCK  # what is asked for without an end may be left at any time
    assert case.sent <= 1.1 * SIZE + PART  # aria2 asks for the whole object first, and leaves that


def test_parallel_ranges_of_curl(site: Site, case: Case, tmp_path: Path, data: bytes) -> None:
    """Eight ranges that curl fetches at once make the object (I1, I10)."""
    curl = installed("curl")
    case.of(curl, "eight ranges at once")
    url = site.store("file", data)
    step = SIZE // 8
    each = [("-r", f"{at}-{at + step - 1}", "-o", f"{at}", url) for at in range(0, SIZE, step)]
    options = [
        option for number, each in enumerate(each) for option in (*(("--next",) if number else ()), "-sSf", *each)
    ]
    run(curl.path, "-Z", "--parallel-immediate", *options, folder=tmp_path)
    assert b"".join((tmp_path / f"{at}").read_bytes() for at in range(0, SIZE, step)) == data
    case.count(site)
    assert_bounded(case, SIZE, 8)


def test_slow(site: Site, case: Case, tmp_path: Path) -> None:
    """Programs that limit their rate get the whole object, all at a time, each of another object (I1, I3)."""
    programs = {name: fetched(name, SLOW) for name in SLOW}
    case.of(programs["curl"][0], f"slow, at 1 MiB/s; so do {', '.join(sorted(SLOW.keys() - {'curl'}))}")
    expected = {name: object_bytes(SMALL, seed) for seed, name in enumerate(SLOW)}

    def fetch(name: str) -> bytes:
        program, command = programs[name]
        folder = tmp_path / name
        folder.mkdir()
        run(*command(program, site.store(name, expected[name])), folder=folder)
        return (folder / "file").read_bytes()

    with ThreadPoolExecutor(len(SLOW)) as pool:
        assert dict(zip(SLOW, pool.map(fetch, SLOW), strict=True)) == expected
    case.count(site)
    assert case.sent <= 1.1 * SMALL * len(SLOW)


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_after_a_replacement(name: str, site: Site, case: Case, tmp_path: Path) -> None:
    """A program that sends If-Range gets the new version, whole. Without it a server cannot know what it has."""
    program, command = fetched(name, RESUMED)
    case.of(program, f"goes on with the file of an older version ({name})")
    old, new = object_bytes(SMALL, 1), object_bytes(SMALL, 2)
    site.store("file", new)
    kept = tmp_path / "file"
    kept.write_bytes(old[: SMALL // 3])
    with ClientLink(site) as link:
        run(*command(program, link.url_of("file")), folder=tmp_path)
        if link.sends("if-range"):
            assert kept.read_bytes() == new
        else:
            assert kept.read_bytes() == old[: SMALL // 3] + new[SMALL // 3 :]
            case.cannot("goes on with a file without If-Range, so a file of an older version ends as the new one.")
    case.count(site)


def test_curl_resumes_with_if_range(site: Site, case: Case, tmp_path: Path) -> None:
    """With If-Range curl goes on with the same version, and refuses another one without harm to the file (I1)."""
    curl = installed("curl")
    case.of(curl, '`-C -` with `-H "If-Range: …"`')
    old, new = object_bytes(SMALL, 1), object_bytes(SMALL, 2)
    url = site.store("file", old)
    etag = site.send("HEAD", "file").fields["ETag"]
    kept = tmp_path / "file"
    command = (curl.path, "-sSf", "-C", "-", "-H", f"If-Range: {etag}", "-o", "file", url)
    kept.write_bytes(old[: SMALL // 3])
    run(*command, folder=tmp_path)
    assert kept.read_bytes() == old
    assert site.send("PUT", "file", body=new).status == 201
    kept.write_bytes(old[: SMALL // 3])
    assert run(*command, folder=tmp_path, fails=True).status == 33  # no byte ranges
    assert kept.read_bytes() == old[: SMALL // 3]
    case.count(site)


BROKEN: dict[str, tuple[str, str, Command]] = {
    "curl": (
        "curl",
        "",
        lambda p, url: (p.path, "-sSf", "--retry", "3", "--retry-all-errors", "--retry-delay", "1", "-o", "file", url),
    ),
    "wget": ("wget", "", lambda p, url: (p.path, "-nv", "-t", "3", "-O", "file", url)),
    "aria2": (
        "aria2c",
        "aria2",
        lambda p, url: (p.path, "-q", "-x1", "-s1", "--retry-wait=1", "--file-allocation=none", "-o", "file", url),
    ),
    "aria2, 16 connections": (
        "aria2c",
        "aria2",
        lambda p, url: (p.path, "-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "-o", "file", url),
    ),
    "rclone": ("rclone", "", _rclone("--multi-thread-streams", "0")),
}
"""How a program fetches a URL into `file`, and tries again after a break."""


@pytest.mark.parametrize("name", BROKEN)
def test_broken_off(name: str, site: Site, case: Case, tmp_path: Path, data: bytes) -> None:
    """A program whose connection breaks in the middle ends with the object, and it is fetched once (I1, I3, I10)."""
    program, command = fetched(name, BROKEN)
    case.of(program, f"tries again after a break ({name})")
    site.store("file", data)
    with ClientLink(site) as link:
        link.at(512 << 10, lambda: None, cut=True)
        run(*command(program, link.url_of("file")), folder=tmp_path)
        assert len(link.asked("file")) >= 2
    assert (tmp_path / "file").read_bytes() == data
    case.count(site)
    assert case.sent <= 1.1 * SIZE + 2 * PART  # of what was on its way at the break, and as aria2 left for ranges
    assert case.requests <= SIZE // BLOCK


SPLICE = {
    "wget": "tries again without If-Range, so a replacement in the middle of a download gives a mixture.",
}
"""Programs that do not notice a replacement between a break and the next try."""


@pytest.mark.parametrize("name", BROKEN)
def test_replaced_between_a_break_and_the_next_try(name: str, site: Site, case: Case, tmp_path: Path) -> None:
    """A program has one version or fails. One that asks for the rest without If-Range gets the rest it asks for: each
    response is of one version (I1).
    """
    program, command = fetched(name, BROKEN)
    case.of(program, f"a replacement after a break ({name})")
    old, new = object_bytes(2 * SMALL, 1), object_bytes(2 * SMALL + 12345, 2)
    site.store("file", old)
    with ClientLink(site) as link:
        link.at(512 << 10, lambda: site.send("PUT", "file", body=new), cut=True)
        status = run_either(*command(program, link.url_of("file")), folder=tmp_path)
        assert not link.sends("if-range")
        result = (tmp_path / "file").read_bytes()
        if name in SPLICE:
            case.cannot(SPLICE[name])
            (place,) = {int((seen.range or "bytes=0-")[6:].partition("-")[0]) for seen in link.asked("file")} - {0}
            assert result == old[:place] + new[place:]
        else:
            assert status != 0 or result == new
    case.count(site)


def run_either(*command: str, folder: Path) -> int:
    """Run a program that may fail, and return its status."""
    shell = ("sh", "-c", '"$@"; echo $? > status', "sh", *command)
    run(*shell, folder=folder)
    return int((folder / "status").read_text())


@pytest.mark.parametrize("name", ["curl", "lftp", "rclone", "wget2"])
def test_replaced_while_it_is_sent(name: str, site: Site, case: Case, tmp_path: Path, data: bytes) -> None:
    """A replacement in the middle of a response never shows in its bytes: it goes on with its version, or ends (I1)."""
    program, command = fetched(name, WHOLE)
    case.of(program, f"a replacement in the middle of a response ({name})")
    new = object_bytes(SIZE + 12345, 2)
    site.store("file", data)
    with ClientLink(site) as link:
        link.at(512 << 10, lambda: site.send("PUT", "file", body=new), cut=False)
        status = run_either(*command(program, link.url_of("file")), folder=tmp_path)
        is_resumed = any(seen.range not in (None, "bytes=0-") for seen in link.asked("file"))
    result = (tmp_path / "file").read_bytes() if (tmp_path / "file").exists() else b""
    if not is_resumed:
        assert result in (data, new) or data.startswith(result)
        assert result in (data, new) or status != 0 or name == "wget2"  # which reports a short file and ends with 0
    case.count(site)


def test_rclone_copies_a_folder(site_with: Callable[[str], Site], case: Case, tmp_path: Path) -> None:
    """Rclone reads a folder by its index page, copies its files, and copies nothing again (I1)."""
    rclone = installed("rclone", version=("version",))
    case.of(rclone, "copies a folder by its index page, checks it, and copies nothing again")
    site = site_with(MOUNTS.replace("path: /,", "path: /, site: {index: index.html}, inline_types: [text/html],"))
    files = {f"file {number}": object_bytes(SMALL, number) for number in range(4)}
    for name, body in files.items():
        site.store(f"folder/{name}", body)
    links = "".join(f'<a href="{quote(name)}">{name}</a>' for name in files)
    site.store("folder/index.html", f"<!DOCTYPE html><body>{links}</body>".encode(), ContentType="text/html")
    remote = ("--http-url", f"{site.url}/folder/", ":http:", "copy")
    run(rclone.path, "copy", *remote, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == files
    run(rclone.path, "check", "--download", *remote, folder=tmp_path)
    case.count(site)
    assert case.sent <= 1.1 * SMALL * len(files)
    site.forget()
    run(rclone.path, "copy", *remote, folder=tmp_path)
    assert site.origin_bytes() == 0


def test_unchanged(site: Site, case: Case, tmp_path: Path) -> None:
    """What a program has already is not sent again: it asks with a condition and gets 304."""
    curl, wget, wget2, aria2 = (installed(name) for name in ("curl", "wget", "wget2", "aria2c"))
    case.of(curl, "fetches an unchanged file again by ETag and by date; wget, wget2 and aria2 by date")
    data = object_bytes(SMALL)
    site.store("file", data)
    by_tag = (curl.path, "-sSf", "--etag-save", "tag", "--etag-compare", "tag", "-o", "file")
    commands: dict[str, tuple[str, ...]] = {
        "curl, by ETag": by_tag,
        "curl, by date": (curl.path, "-sSf", "-R", "-z", "file", "-o", "file"),
        "wget": (wget.path, "-nv", "-N"),
        "wget2": (wget2.path, "-nv", "-N"),
        "aria2": (aria2.path, "-q", "--conditional-get", "--allow-overwrite", "-o", "file"),
    }
    for name, command in commands.items():
        folder = tmp_path / name
        folder.mkdir()
        with ClientLink(site) as link:
            run(*command, link.url_of("file"), folder=folder)
            first = len(link.asked("file"))
            run(*command, link.url_of("file"), folder=folder)
            again = link.asked("file")[first:]
        assert (folder / "file").read_bytes() == data
        assert [seen.status for seen in again] == [304], name
    case.count(site)
    assert case.sent <= 1.1 * SMALL


def test_a_steady_slow_reader_is_served(steady_reader: SteadyReader, case: Case, data: bytes) -> None:
    """A client that reads 16 KiB a second is still being served after more than a minute (I20)."""
    case.of(installed("curl"), "`--limit-rate 16k` for more than a minute")
    with pytest.raises(subprocess.TimeoutExpired):
        steady_reader.process.wait(max(0.0, steady_reader.until - time.monotonic()))
    received = steady_reader.file.read_bytes()
    assert len(received) > 512 << 10
    assert data.startswith(received)
