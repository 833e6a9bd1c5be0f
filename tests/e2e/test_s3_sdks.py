"""SDKs other than boto3 at the S3 endpoint: of JavaScript, Rust, Ruby and MinIO."""

import json
from pathlib import Path

import installs
import pytest
from case import Case
from client_packages import AWS_SDK_JS, AWS_SDK_JS_STORAGE, MINIO, OBSTORE, named, python
from fakes import object_bytes
from programs import Program, installed, run
from signed_endpoint import SignedEndpoint
from site_under_test import BUCKET, Site

MIB = 1 << 20
SIZE = 17 * MIB + 3


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """Return the bytes of the file `data` in the folder of the test."""
    made = object_bytes(SIZE)
    (tmp_path / "data").write_bytes(made)
    return made


# --- AWS SDK for JavaScript ----------------------------------------------------------------------------------

JAVASCRIPT = """
import { createReadStream, createWriteStream, statSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import * as s3 from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
const [endpoint, bucket, folder] = process.argv.slice(2);
const client = new s3.S3Client({ endpoint, forcePathStyle: true, maxAttempts: 1 });
const named = (name) => ({ Bucket: bucket, Key: `${folder}/${name}` });
const show = (value) => console.log(JSON.stringify(value));
const text = async (name) => (await client.send(new s3.GetObjectCommand(named(name)))).Body.transformToString();
const nameOf = (command) => client.send(command).then(() => "", (error) => error.name);

const upload = new Upload({ client, partSize: 5 << 20, queueSize: 3,
                            params: { ...named("parts"), Body: createReadStream("data") } });
await upload.done();
await pipeline((await client.send(new s3.GetObjectCommand(named("parts")))).Body, createWriteStream("back"));
const put = await client.send(new s3.PutObjectCommand({
  ...named("stream"), Body: createReadStream("data"), ContentLength: statSync("data").size, Metadata: { a: "b" } }));
show(Boolean(put.ChecksumCRC32));
for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]) {
  await client.send(new s3.PutObjectCommand({ ...named("data"), Body: ChecksumAlgorithm, ChecksumAlgorithm }));
  show(await text("data"));
}
const head = await client.send(new s3.HeadObjectCommand(named("stream")));
show([head.ContentLength, head.Metadata]);
await client.send(new s3.CopyObjectCommand({ ...named("data"), CopySource: `${bucket}/${folder}/stream` }));
show((await client.send(new s3.HeadObjectCommand(named("data")))).ContentLength);
const listed = [];
for await (const page of s3.paginateListObjectsV2({ client, pageSize: 1 }, { Bucket: bucket, Prefix: `${folder}/` })) {
  listed.push(...page.Contents.map((item) => item.Key.slice(folder.length + 1)));
}
show(listed);
show([await nameOf(new s3.GetObjectCommand(named("none"))),
      await nameOf(new s3.PutObjectCommand({ ...named("data"), Body: "x", IfNoneMatch: "*" }))]);
const objects = listed.map((name) => ({ Key: `${folder}/${name}` }));
await client.send(new s3.DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects: objects } }));
show(await nameOf(new s3.GetObjectCommand(named("data"))));
"""


def test_javascript(place: Site, case: Case, endpoint: SignedEndpoint, data: bytes, tmp_path: Path) -> None:
    """The AWS SDK for JavaScript stores streams in chunks with a checksum behind them, and in parts, and lists."""
    what = "`Upload` in parts, PutObject of streams with each checksum, GetObject, CopyObject, lists, DeleteObjects"
    case.of(named(AWS_SDK_JS, "AWS SDK for JavaScript"), what)
    folder = installs.npm(AWS_SDK_JS_STORAGE, AWS_SDK_JS)
    node = installed("node", "nodejs")
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    (tmp_path / "script.mjs").write_text(JAVASCRIPT)
    arguments = ("script.mjs", endpoint.url, BUCKET, place.folder)
    done = run(node.path, *arguments, folder=tmp_path, environment=endpoint.environment)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        True,
        *["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"],
        [SIZE, {"a": "b"}],
        SIZE,
        ["data", "parts", "stream"],
        ["NoSuchKey", "PreconditionFailed"],
        "NoSuchKey",
    ]
    assert (tmp_path / "back").read_bytes() == data
    assert place.names() == []


# --- Rust: object_store ---------------------------------------------------------------------------------------

RUST = """
import json, sys
import obstore
from obstore.store import S3Store
endpoint, bucket, folder = sys.argv[1:]
store = S3Store(bucket, prefix=folder, endpoint=endpoint, client_options={"allow_http": True})
def show(value): print(json.dumps(value))
def error_of(call, *given, **named):
    try:
        call(*given, **named)
    except Exception as error:
        return type(error).__name__
from pathlib import Path
data = Path("data").read_bytes()
obstore.put(store, "parts", data, chunk_size=5 << 20, use_multipart=True, max_concurrency=3)
Path("back").write_bytes(obstore.get(store, "parts").bytes())
obstore.put(store, "data", b"0123456789", attributes={"Content-Type": "text/plain"})
show(bytes(obstore.get_range(store, "data", start=2, length=3)).decode())
show([bytes(each).decode() for each in obstore.get_ranges(store, "data", starts=[0, 8], lengths=[2, 2])])
show(obstore.head(store, "data")["size"])
show(error_of(obstore.put, store, "data", b"other", mode="create"))
show(error_of(obstore.get, store, "none"))
obstore.copy(store, "data", "copy")
obstore.rename(store, "copy", "renamed")
show(sorted(each["path"] for page in obstore.list(store) for each in page))
obstore.delete(store, ["data", "renamed", "parts"])
show(error_of(obstore.head, store, "data"))
"""


def test_rust(place: Site, case: Case, endpoint: SignedEndpoint, data: bytes, tmp_path: Path) -> None:
    """The `object_store` crate uploads in parts, reads ranges, writes conditionally, lists, and deletes many."""
    case.of(named(OBSTORE, "object_store (Rust, by obstore)"), "parts, ranges, conditional writes, copies, lists")
    arguments = (endpoint.url, BUCKET, place.folder)
    assert python(tmp_path, (OBSTORE,), RUST, *arguments, environment=endpoint.environment) == [
        "234",
        ["01", "89"],
        10,
        "AlreadyExistsError",
        "FileNotFoundError",
        ["data", "parts", "renamed"],
        "FileNotFoundError",
    ]
    assert (tmp_path / "back").read_bytes() == data
    assert place.names() == []


# --- Ruby -----------------------------------------------------------------------------------------------------

RUBY = """
require "aws-sdk-s3"
require "json"
endpoint, bucket, folder = ARGV
client = Aws::S3::Client.new(endpoint: endpoint, force_path_style: true, retry_limit: 0)
resource = Aws::S3::Resource.new(client: client)
def show(value) = puts(JSON.generate([value]))
def name_of
  yield
rescue Aws::Errors::ServiceError => error
  error.class.name.split("::").last
end
object = resource.bucket(bucket).object("#{folder}/parts")
object.upload_file("data", multipart_threshold: 5 << 20)
object.download_file("back", mode: "get_range", chunk_size: 5 << 20)
client.put_object(bucket: bucket, key: "#{folder}/ä +b", body: "data", content_md5: Digest::MD5.base64digest("data"))
show(client.get_object(bucket: bucket, key: "#{folder}/ä +b", range: "bytes=1-2").body.read)
show(client.list_objects_v2(bucket: bucket, prefix: "#{folder}/").contents.map { |item| item.key.split("/").last })
show(name_of { client.get_object(bucket: bucket, key: "none") })
resource.bucket(bucket).objects(prefix: folder).batch_delete!
"""


def test_ruby(place: Site, case: Case, endpoint: SignedEndpoint, data: bytes, tmp_path: Path) -> None:
    """The AWS SDK for Ruby stores and fetches a file in parts, lists, and deletes all below a folder."""
    ruby = installed("ruby", "ruby-aws-sdk-s3")
    case.of(Program("AWS SDK for Ruby", ruby.path, ruby.version), "`upload_file`, `download_file`, lists, deletes")
    (tmp_path / "script.rb").write_text(RUBY)
    arguments = ("script.rb", endpoint.url, BUCKET, place.folder)
    done = run(ruby.path, *arguments, folder=tmp_path, environment=endpoint.environment)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [["at"], [["parts", "ä +b"]], ["NoSuchKey"]]
    assert (tmp_path / "back").read_bytes() == data
    assert place.names() == []


# --- MinIO ----------------------------------------------------------------------------------------------------

MINIO_SCRIPT = """
import io, json, sys, urllib.request
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
host, access_key, secret_key, bucket, folder = sys.argv[1:]
client = Minio(endpoint=host, access_key=access_key, secret_key=secret_key, secure=False)
def show(value): print(json.dumps(value))
client.fput_object(bucket_name=bucket, object_name=f"{folder}/parts", file_path="data", part_size=5 << 20)
client.fget_object(bucket_name=bucket, object_name=f"{folder}/parts", file_path="back")
client.put_object(bucket_name=bucket, object_name=f"{folder}/a +ä", data=io.BytesIO(b"data"), length=-1,
                  part_size=5 << 20)
client.copy_object(bucket_name=bucket, object_name=f"{folder}/copy", source=CopySource(bucket, f"{folder}/a +ä"))
show(client.stat_object(bucket_name=bucket, object_name=f"{folder}/copy").size)
url = client.presigned_get_object(bucket_name=bucket, object_name=f"{folder}/a +ä")
show(urllib.request.urlopen(url).read().decode())
names = [each.object_name for each in client.list_objects(bucket_name=bucket, prefix=f"{folder}/", recursive=True)]
show([name.removeprefix(f"{folder}/") for name in names])
try:
    client.stat_object(bucket_name=bucket, object_name="none")
except S3Error as error:
    show(error.code)
show(len(list(client.remove_objects(bucket_name=bucket, delete_object_list=[DeleteObject(name) for name in names]))))
"""


def test_minio_py(place: Site, case: Case, endpoint: SignedEndpoint, data: bytes, tmp_path: Path) -> None:
    """minio-py, which asks for the region of the bucket, uploads in parts, copies, presigns, lists and deletes."""
    case.of(named(MINIO, "minio-py"), "`fput_object` in parts, `fget_object`, copies, presigned URLs, lists, deletes")
    arguments = (endpoint.host, endpoint.access_key, endpoint.secret_key, BUCKET, place.folder)
    found = python(tmp_path, (MINIO,), MINIO_SCRIPT, *arguments, environment={})
    assert found == [4, "data", ["a +ä", "copy", "parts"], "NoSuchKey", 0]
    assert (tmp_path / "back").read_bytes() == data
    assert place.names() == []
