"""Package managers and git: their repositories are objects, and bucketfront is the server."""

import gzip
import hashlib
import http.server
import io
import json
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import installs
import pytest
from bucketfront_process import Running, bucketfront
from case import Case
from client_link import ClientLink
from fakes import object_bytes
from programs import Finished, Program, installed, run
from site_under_test import MOUNTS, Origin, Site, folder_of

PIP = "25.3"
SIZE = 5 << 20
WITH_INDEX = MOUNTS.replace("path: /,", "path: /, site: {index: index.html}, inline_types: [text/html],")


def store_folder(site: Site, folder: Path, below: str = "") -> None:
    """Store each file of a folder, by its path in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            site.store(f"{below}{path.relative_to(folder)}", path.read_bytes())


# pip


def wheel(name: str, payload: bytes, requires: str = "") -> bytes:
    """Return a wheel of a package of data."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files = {
        f"{name}/__init__.py": b"",
        f"{name}/data": payload,
        f"{info}/METADATA": (metadata + (f"Requires-Dist: {requires}\n" if requires else "")).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD")).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return made.getvalue()


def store_index(site: Site, name: str, data: bytes) -> str:
    """Store a wheel and its page in a simple index, and return its file name."""
    file = f"{name}-1.0-py3-none-any.whl"
    digest = hashlib.sha256(data).hexdigest()
    page = f'<!DOCTYPE html><html><body><a href="../../files/{file}#sha256={digest}">{file}</a></body></html>'
    site.store(f"simple/{name}/index.html", page.encode(), ContentType="text/html")
    site.store(f"files/{file}", data, ContentType="application/octet-stream")
    return file


def pip(folder: Path, index: str, *arguments: str, fails: bool = False) -> Finished:
    """Run pip with an index, and without any other."""
    where = {"PYTHONPATH": str(installs.pip(f"pip=={PIP}")), "PIP_CONFIG_FILE": "/dev/null"}
    options = ("--no-cache-dir", "--disable-pip-version-check", "--no-input")
    command = (sys.executable, "-m", "pip", *arguments, *options, "--index-url", f"{index}/simple/")
    return run(*command, folder=folder, environment=where, fails=fails)


@pytest.fixture(scope="module")
def with_index(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("indexed")
    with bucketfront(origin.configuration(folder, WITH_INDEX), folder) as running:
        yield running
        assert "Traceback" not in running.printed(), running.printed()


@pytest.fixture
def indexed(origin: Origin, with_index: Running, request: pytest.FixtureRequest) -> Site:
    """Return a folder of the bucket that shows `index.html` for a path that ends in a slash."""
    return Site(origin, with_index, folder_of(request.node.nodeid))


def test_pip_downloads(indexed: Site, case: Case, tmp_path: Path) -> None:
    """Pip finds a package and what it requires in a simple index of objects, and has their bytes (I1)."""
    case.of(Program("pip", "pip", PIP), "downloads from a simple index")
    wheels = {"demo": wheel("demo", object_bytes(SIZE), "helper"), "helper": wheel("helper", object_bytes(1000))}
    files = {store_index(indexed, name, data): data for name, data in wheels.items()}
    pip(tmp_path, indexed.url, "download", "--dest", "got", "demo")
    assert {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()} == files
    case.count(indexed)
    assert case.sent <= 1.1 * sum(map(len, files.values()))


def test_pip_reads_the_metadata_of_a_wheel(indexed: Site, case: Case, tmp_path: Path) -> None:
    """Pip resolves by ranges at the ends of the wheels, and the origin sends a small part of them."""
    case.of(Program("pip", "pip", PIP), "resolves with ranges of a wheel (fast-deps)")
    store_index(indexed, "demo", wheel("demo", object_bytes(4 * SIZE)))
    fast = ("--use-feature=fast-deps", "--target", "unused")
    printed = pip(tmp_path, indexed.url, "install", "--dry-run", "--ignore-installed", *fast, "demo").output
    assert "Would install demo-1.0" in printed
    case.count(indexed)
    assert case.sent <= 2 << 20


def test_pip_resumes(indexed: Site, case: Case, tmp_path: Path) -> None:
    """Pip goes on after a break with If-Range. If the wheel was replaced in between, it has none of a mixture (I1)."""
    case.of(Program("pip", "pip", PIP), "goes on after a break (`--resume-retries`)")
    data, other = wheel("demo", object_bytes(SIZE)), wheel("demo", object_bytes(SIZE, 1))
    file = store_index(indexed, "demo", data)
    resume = ("download", "--resume-retries", "3", "--dest", "got", "demo")
    with ClientLink(indexed) as link:
        link.at(1 << 20, lambda: None, cut=True)
        pip(tmp_path, link.url_of(""), *resume)
        assert link.sends("if-range")
        assert [seen.status for seen in link.asked(file)] == [200, 206]
    kept = tmp_path / "got" / file
    assert kept.read_bytes() == data
    kept.unlink()
    with ClientLink(indexed) as link:
        link.at(1 << 20, lambda: indexed.send("PUT", f"files/{file}", body=other), cut=True)
        printed = pip(tmp_path, link.url_of(""), *resume, fails=True).output
        assert [seen.status for seen in link.asked(file)] == [200, 200]
    assert hashlib.sha256(other).hexdigest() in printed  # which it refuses, as it is not the one of the index
    case.count(indexed)


# apt


def debian_package(folder: Path, name: str, payload: bytes) -> Path:
    """Make a package of data, and return its file."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr").mkdir()
    control = (
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Test <test@example.com>\nDescription: test\n"
    )
    (root / "DEBIAN" / "control").write_text(control)
    (root / "usr" / name).write_bytes(payload)
    made = folder / f"{name}_1.0_all.deb"
    run(installed("dpkg-deb", "dpkg").path, "-Znone", "--root-owner-group", "-b", root, made, folder=folder)
    return made


def packages_of(pool: Path) -> bytes:
    """Return the index of the packages in `pool`, named from the folder above."""
    archive = installed("apt-ftparchive", "apt-utils")
    return run(archive.path, "packages", pool.name, folder=pool.parent).stdout


class Apt:
    """The apt of a root of its own."""

    def __init__(self, folder: Path) -> None:
        self.program = installed("apt-get", "apt")
        self.folder = folder / "apt"
        for name in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d"):
            (self.folder / name).mkdir(parents=True)
        for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "var/lib/dpkg/status").touch()

    def run(self, source: str, *arguments: str, fails: bool = False) -> str:
        """Run apt-get with one line in its list of sources."""
        (self.folder / "etc/apt/sources.list").write_text(f"deb [trusted=yes arch=amd64] {source}\n")
        options = {
            "Dir": str(self.folder),
            "Dir::State::status": str(self.folder / "var/lib/dpkg/status"),
            "APT::Sandbox::User": "",
            "APT::Architecture": "amd64",
            "Acquire::Retries": "3",
            "Acquire::Languages": "none",
            "APT::Update::Error-Mode": "any",
        }
        settings = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        environment = {"APT_CONFIG": "/dev/null"}
        return run(
            self.program.path, *settings, *arguments, folder=self.folder, environment=environment, fails=fails
        ).output

    def downloaded(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def store_distribution(site: Site, folder: Path, *packages: Path) -> None:
    """Store packages as the distribution `stable`."""
    tree = folder / "tree"
    pool, index = tree / "pool", tree / "dists" / "stable" / "main" / "binary-amd64"
    shutil.rmtree(tree, ignore_errors=True)
    pool.mkdir(parents=True)
    index.mkdir(parents=True)
    for package in packages:
        shutil.copy(package, pool)
    (index / "Packages").write_bytes(packages_of(pool))
    (index / "Packages.gz").write_bytes(gzip.compress((index / "Packages").read_bytes()))
    named = {"Suite": "stable", "Codename": "stable", "Components": "main", "Architectures": "amd64"}
    options = [word for key, value in named.items() for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")]
    release = run(
        installed("apt-ftparchive", "apt-utils").path, *options, "release", "dists/stable", folder=tree
    ).stdout
    (tree / "output").unlink()
    (tree / "dists/stable/Release").write_bytes(release)
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            assert site.send("PUT", str(path.relative_to(tree)), body=path.read_bytes()).status == 201


def test_apt_updates_and_downloads(site: Site, case: Case, tmp_path: Path) -> None:
    """Apt reads a distribution, downloads a package, and sees a new package after an update (I5)."""
    apt = Apt(tmp_path)
    case.of(apt.program, "updates and downloads (dists/)")
    first = debian_package(tmp_path, "first", object_bytes(SIZE))
    store_distribution(site, tmp_path, first)
    apt.run(f"{site.url} stable main", "update")
    apt.run(f"{site.url} stable main", "download", "first")
    assert apt.downloaded(first.name) == first.read_bytes()
    assert "Hit:" in apt.run(f"{site.url} stable main", "update")  # 304
    second = debian_package(tmp_path, "second", object_bytes(1000, 1))
    time.sleep(1 - time.time() % 1)  # apt has only Last-Modified, whose unit is a second, to tell versions apart
    store_distribution(site, tmp_path, first, second)
    apt.run(f"{site.url} stable main", "update")
    apt.run(f"{site.url} stable main", "download", "second")
    assert apt.downloaded(second.name) == second.read_bytes()
    case.count(site)


@pytest.mark.parametrize("place", ["flat-pool/", "./"])
def test_apt_reads_a_flat_repository(place: str, site: Site, case: Case, tmp_path: Path) -> None:
    """Apt reads a flat repository in a folder with a name, and in `./`.

    There it asks for `./Packages`, a key that no S3 has, and gets the object `Packages`.
    """
    apt = Apt(tmp_path)
    case.of(apt.program, f"updates and downloads (flat repository `{place}`)")
    package = debian_package(tmp_path, "flat", object_bytes(SIZE))
    pool = tmp_path / "pool"
    pool.mkdir()
    shutil.copy(package, pool)
    folder = place.removeprefix("./")
    # Apt finds packages by the path in their index, which is relative to the repository's URL.
    site.store(f"pool/{package.name}", package.read_bytes())
    site.store(f"{folder}Packages", packages_of(pool))
    apt.run(f"{site.url} {place}", "update")
    apt.run(f"{site.url} {place}", "download", "flat")
    assert apt.downloaded(package.name) == package.read_bytes()
    case.count(site)


def test_apt_goes_on_after_a_break(site: Site, case: Case, tmp_path: Path) -> None:
    """Apt tries again with If-Range, so that it has one version, also of a package that was replaced (I1)."""
    apt = Apt(tmp_path)
    case.of(apt.program, "goes on after a break, also if the package is replaced")
    package = debian_package(tmp_path, "broken", object_bytes(SIZE))
    data = package.read_bytes()
    other = data[:1000] + object_bytes(len(data) - 1000, 1)
    store_distribution(site, tmp_path, package)
    with ClientLink(site) as link:
        source = f"{link.url_of('')} stable main"
        apt.run(source, "update")
        link.at(1 << 20, lambda: None, cut=True)
        apt.run(source, "download", "broken")
        assert apt.downloaded(package.name) == data
        assert link.sends("if-range")
        link.at(1 << 20, lambda: site.send("PUT", f"pool/{package.name}", body=other), cut=True)
        (apt.folder / package.name).unlink()
        printed = apt.run(source, "download", "broken", fails=True)
    assert "Hash Sum mismatch" in printed or "unexpected size" in printed
    assert apt.downloaded(f"{package.name}.FAILED") == other
    case.count(site)


# git

GIT_SETTINGS = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}


def git(folder: Path, *arguments: str, fails: bool = False) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main")
    program = installed("git")
    return run(program.path, *who, *arguments, folder=folder, environment=GIT_SETTINGS, fails=fails).output


def committed(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    git(folder, "add", name)
    git(folder, "commit", "-q", "-m", name)


def put_repository(site: Site, work: Path, bare: Path) -> None:
    """Store a bare copy of a repository, as a static server needs it, through bucketfront."""
    shutil.rmtree(bare, ignore_errors=True)
    git(work, "clone", "-q", "--bare", str(work), str(bare))
    git(bare, "repack", "-q", "-a", "-d")
    git(bare, "update-server-info")
    for path in sorted(bare.rglob("*")):
        if path.is_file() and path.name not in ("output", "config") and "hooks" not in path.parts:
            assert site.send("PUT", f"demo.git/{path.relative_to(bare)}", body=path.read_bytes()).status == 201


def test_git_clones_and_pulls(site: Site, case: Case, tmp_path: Path) -> None:
    """Git clones a bare repository whose files are objects, and pulls a later commit (I1, I5)."""
    case.of(installed("git"), "clones and pulls a bare repository (the protocol without a server's part)")
    work, clone = tmp_path / "work", tmp_path / "clone"
    work.mkdir()
    git(work, "init", "-q")
    (work / ".git/info/exclude").write_text("output\n")
    first, second = object_bytes(2 << 20), object_bytes(1 << 20, 1)
    committed(work, "first", first)
    put_repository(site, work, tmp_path / "bare")
    git(tmp_path, "clone", "-q", site.url_of("demo.git"), str(clone))
    assert (clone / "first").read_bytes() == first
    committed(work, "second", second)
    put_repository(site, work, tmp_path / "bare")
    git(clone, "pull", "-q")
    assert (clone / "second").read_bytes() == second
    assert git(clone, "fsck", "--strict") == ""
    case.count(site)


class LfsApi(http.server.BaseHTTPRequestHandler):
    """The batch API of Git LFS. It only names the URLs at which git-lfs itself puts and gets its objects."""

    objects = ""  # their URL

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        named = [
            {**each, "actions": {asked["operation"]: {"href": f"{self.objects}/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        data = json.dumps({"transfer": "basic", "objects": named}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def lfs_api(objects: str) -> Iterator[str]:
    """Run the batch API for objects below a URL, and return its own."""
    handler = type("Handler", (LfsApi,), {"objects": objects})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_git_lfs_pushes_and_pulls(site: Site, case: Case, tmp_path: Path) -> None:
    """Git LFS puts an object through bucketfront, and has it from there, also after a break (I1, I5)."""
    case.of(installed("git-lfs"), "pushes, pulls, goes on after a break (basic transfers)")
    work, bare, clone = tmp_path / "work", tmp_path / "bare", tmp_path / "clone"
    data = object_bytes(SIZE)
    oid = hashlib.sha256(data).hexdigest()
    git(tmp_path, "init", "-q", "--bare", str(bare))
    git(tmp_path, "clone", "-q", str(bare), str(work))
    (work / ".git/info/exclude").write_text("output\n")
    git(work, "lfs", "install", "--local")
    git(work, "lfs", "track", "*.bin")
    committed(work, ".gitattributes", b"*.bin filter=lfs diff=lfs merge=lfs -text\n")
    committed(work, "big.bin", data)
    with lfs_api(site.url_of("lfs")) as api:
        git(work, "-c", f"lfs.url={api}", "push", "-q", "origin", "main")
    assert site.stored(f"lfs/{oid}") == data
    git(tmp_path, "clone", "-q", str(bare), str(clone))
    assert (clone / "big.bin").stat().st_size < 1000  # a pointer
    git(clone, "lfs", "install", "--local")
    with ClientLink(site) as link, lfs_api(link.url_of("lfs")) as api:
        link.at(1 << 20, lambda: None, cut=True)
        git(clone, "-c", f"lfs.url={api}", "lfs", "pull")
        assert len(link.asked(oid)) == 2
    assert (clone / "big.bin").read_bytes() == data
    case.count(site)
    assert case.sent <= 1.1 * SIZE
