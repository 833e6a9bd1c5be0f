"""Clients that speak S3: they get S3's responses and errors, and never an object in place of something else."""

import asyncio
import io
from typing import Any
from xml.etree import ElementTree as ET

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from proxy_under_test import S3, Proxy, StartProxy
from rows import each_row
from wire import Response

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, Signature=0"}
BODY = b"data"
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE"]

OF_OBJECTS = [
    *("acl", "attributes", "legal-hold", "partNumber=2", "retention", "tagging", "torrent", "uploadId=1", "uploads"),
    *("select&select-type=2", "restore", "acl=", "%61cl", "v=1&tagging", "uploads&X-Amz-Signature=0"),
]
OF_BUCKETS = ["list-type=2", "location", "versions", "versioning", "policy", "cors", "lifecycle", "uploads", "acl"]


def error_of(response: Response) -> str | None:
    """Return the code of an error document of S3."""
    assert response.headers["Content-Type"] == "application/xml"
    root = ET.fromstring(response.body)
    assert root.findtext("RequestId") == response.headers["x-amz-request-id"]
    return root.findtext("Code")


def boto(proxy: Proxy, **options: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=proxy.address,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **options),
    )


def as_bucket(s3: S3) -> dict[str, Any]:
    """Return the mount by which S3's clients find the bucket under the name `b`."""
    return {"path": "/b/", "bucket": s3.bucket, "methods": ["GET", "PUT", "DELETE"]}


# --- operations that are not implemented ---------------------------------------------------------------------


@each_row("query", OF_OBJECTS)
@each_row("signed", [{}, SIGNED], ids=["plain", "signed"])
async def test_subresource_of_an_object(proxy: Proxy, s3: S3, query: str, signed: dict[str, str]) -> None:
    """An object is never served or written in place of its sub-resource, warm or cold: 501, with any method."""
    s3.put("x", BODY)
    await proxy.get("/x")
    proxy.relay.reset()
    for _ in range(2):
        for method in METHODS:
            response = await proxy.request(method, f"/x?{query}", signed, b"<X/>" if method[0] == "P" else None)
            assert response.status == 501, method
            assert method == "HEAD" or not signed or error_of(response) == "NotImplemented"
    assert s3.get("x") == BODY
    assert proxy.relay.seen == []


@pytest.mark.parametrize("query", OF_BUCKETS)
async def test_subresource_of_a_bucket(start: StartProxy, s3: S3, query: str) -> None:
    """A list of a bucket is a 501, also on a mount whose own path shows a page."""
    s3.put("index.html", b"page")
    mounts = [{"path": "/", "bucket": s3.bucket, "site": {}}, {"path": "/b/", "bucket": s3.bucket}]
    proxy = await start(mounts=mounts)
    for target in ("/", "/b/"):
        assert (await proxy.get(f"{target}?{query}")).status == 501
        assert error_of(await proxy.request("GET", f"{target}?{query}", SIGNED)) == "NotImplemented"
    assert (await proxy.get("/?_=1")).body == b"page"


@each_row(
    "query",
    ["v=1", "_", "session=abc", "location=berlin", "policy=1", "versions=2", "prefix=a", "marker", "ACL", "x=acl"],
)
async def test_parameters_of_web_pages(proxy: Proxy, s3: S3, query: str) -> None:
    """A parameter that no S3 client would send so is ignored for all others."""
    s3.put("x", BODY)
    for _ in range(2):
        assert (await proxy.get(f"/x?{query}")).body == BODY


@each_row("query", ["acl=x", "session=abc", "prefix=a", "encoding-type=url&delimiter=/"])
async def test_parameters_of_s3_clients(proxy: Proxy, s3: S3, query: str) -> None:
    """A client of S3 means S3's operation, whatever the value, also if the object is a hit for others."""
    s3.put("x", BODY)
    for _ in range(3):
        assert (await proxy.get(f"/x?{query}")).body == BODY
    assert error_of(await proxy.request("GET", f"/x?{query}", SIGNED)) == "NotImplemented"


async def test_subresources_may_be_ignored(start: StartProxy, s3: S3) -> None:
    """With `query: ignore` they mean nothing to web clients, and still something to clients of S3."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "query": "ignore", "methods": ["GET", "PUT"]}])
    s3.put("x", BODY)
    for _ in range(3):
        assert (await proxy.get("/x?acl")).body == BODY
        assert (await proxy.request("GET", "/x?acl", SIGNED)).status == 501
    assert (await proxy.request("PUT", "/x?acl", body=b"<X/>")).status == 501


async def test_versions_for_clients_of_s3(start: StartProxy, s3: S3) -> None:
    """Where versions are off, a client of S3 gets a 501 for one, because it does not mean the current object."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "query": "ignore"}])
    s3.put("x", BODY)
    for _ in range(3):
        assert (await proxy.get("/x?versionId=abc")).body == BODY
        assert error_of(await proxy.request("GET", "/x?versionId=abc", SIGNED)) == "NotImplemented"
        assert (await proxy.request("HEAD", "/x?versionId=abc", SIGNED)).status == 501


async def test_mounts_that_refuse_parameters(start: StartProxy, s3: S3) -> None:
    """With `query: refuse` a sub-resource is a 501 as well, and another parameter a 400."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "query": "refuse"}])
    assert (await proxy.get("/x?acl")).status == 501
    assert (await proxy.get("/x?v=1")).status == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/b", "/b/", "/"])
async def test_operations_of_buckets(start: StartProxy, s3: S3, method: str, path: str) -> None:
    """A client of S3 that means a bucket gets a 501, and no redirect to another URL. It may ask whether it exists."""
    proxy = await start(
        mounts=[{"path": "/b/", "bucket": s3.bucket, "methods": ["GET", "PUT", "DELETE"]}], uploads=None
    )
    response = await proxy.request(method, path, SIGNED, b"" if method == "PUT" else None)
    assert response.status == (200 if method == "HEAD" and path != "/" else 501)
    assert proxy.relay.seen == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_buckets_are_no_objects_of_the_mount_above(start: StartProxy, s3: S3, method: str) -> None:
    """What creates, lists or deletes a bucket does nothing to an object of that name, which others can use (I8)."""
    mounts = [{"path": "/", "bucket": s3.bucket, "methods": ["GET", "PUT", "DELETE"]}, as_bucket(s3)]
    proxy = await start(mounts=mounts)
    s3.put("b", BODY)
    for _ in range(3):
        assert (await proxy.get("/b")).body == BODY
        response = await proxy.request(method, "/b", SIGNED, b"" if method == "PUT" else None)
        assert error_of(response) == "NotImplemented"
    assert s3.get("b") == BODY


async def test_read_only_mounts(start: StartProxy, s3: S3) -> None:
    """A write to a mount without writes is a 405, whatever it means."""
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket}])
    for query in ("", "?acl", "?partNumber=1&uploadId=x"):
        assert error_of(await proxy.request("PUT", f"/x{query}", SIGNED, b"")) == "MethodNotAllowed"
    assert error_of(await proxy.request("POST", "/x?uploads", SIGNED, b"")) == "MethodNotAllowed"


# --- errors --------------------------------------------------------------------------------------------------


async def test_errors_are_those_of_s3(proxy: Proxy, s3: S3) -> None:
    """A client of S3 gets S3's document with S3's code, whatever it accepts, and others get what they got before."""
    s3.put("x", BODY)
    html = {**SIGNED, "Accept": "text/html"}
    cases = [
        ("GET", "/none", {}, 404, "NoSuchKey"),
        ("GET", "/x", {"If-Match": '"other"'}, 412, "PreconditionFailed"),
        ("GET", "/x", {"Range": "bytes=9-"}, 416, "InvalidRange"),
        ("GET", "/%ff", {}, 400, "InvalidURI"),
        ("GET", "/x?response-expires=", {}, 400, "InvalidArgument"),
        ("PUT", "/x", {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, 400, "BadDigest"),
        ("PUT", "/x", {"If-None-Match": "*"}, 412, "PreconditionFailed"),
        ("PUT", "/x", {"x-amz-copy-source": "/b/y"}, 501, "NotImplemented"),
        ("PUT", "/x", {"x-amz-tagging": "="}, 400, "InvalidArgument"),
    ]
    for method, target, fields, status, code in cases:
        body = b"new" if method == "PUT" else None
        response = await proxy.request(method, target, html | fields, body)
        assert (response.status, error_of(response)) == (status, code), target
        plain = await proxy.request(method, target, fields, body)
        assert (plain.status, plain.headers["Content-Type"]) == (status, "application/json"), target
        assert "x-amz-request-id" not in plain.headers
    assert s3.get("x") == BODY


async def test_errors_of_head_have_no_body(proxy: Proxy, s3: S3) -> None:
    """The connection carries the next response after an error of HEAD."""
    s3.put("x", BODY)
    async with proxy.connection() as connection:
        assert (await connection.request("HEAD", "/none", SIGNED)).status == 404
        assert (await connection.request("GET", "/x", SIGNED)).body == BODY


async def test_error_pages_are_not_for_s3_clients(start: StartProxy, s3: S3) -> None:
    """A site's page for a status is for people, and a client of S3 gets S3's document."""
    s3.put("404.html", b"page")
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "site": {"errors": {"404": "404.html"}}}])
    assert (await proxy.get("/none")).body == b"page"
    assert error_of(await proxy.request("GET", "/none", SIGNED)) == "NoSuchKey"


SITE = {"try_extensions": [".html"], "fallback": "app.html", "errors": {"404": "404.html"}}
FURTHER_KEYS = ["index.html", "about.html", "docs/index.html", "app.html", "404.html", "a.js", "a.js.br"]
PRESIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0"


@pytest.fixture
async def site(start: StartProxy, s3: S3) -> Proxy:
    """A site with a page for each path, and all of its objects in the cache."""
    for key in FURTHER_KEYS:
        s3.put(key, key.encode())
    proxy = await start(mounts=[{"path": "/", "bucket": s3.bucket, "site": SITE, "precompressed": ["br"]}])
    for target in (*(f"/{key}" for key in FURTHER_KEYS), "/", "/about", "/docs/", "/docs", "/none", "/docs/./none"):
        for _ in range(2):
            await proxy.get(target, Accept_Encoding="br")
    await proxy.settled()
    return proxy


@each_row(
    "fields", [SIGNED, {"amz-sdk-invocation-id": "1"}, {"authorization": "AWS A:b"}], ids=["v4", "unsigned", "v2"]
)
@each_row("target", ["/none", "/about", "/docs/", "/docs", "/none/", "/docs/./none", "/./about.html"])
async def test_a_client_of_s3_gets_no_other_object(site: Proxy, target: str, fields: dict[str, str]) -> None:
    """A key that does not exist is a 404 to a client of S3, also where a site has a page for its path in the cache."""
    for method in ("GET", "HEAD"):
        for _ in range(2):
            response = await site.request(method, target, {**fields, "Accept": "text/html"})
            assert response.status == 404
            assert method == "HEAD" or error_of(response) == "NoSuchKey"


@pytest.mark.parametrize("target", ["/none", "/about", "/docs/", "/docs"])
async def test_a_presigned_url_names_one_object(site: Proxy, target: str) -> None:
    """The signature may be in the query alone, which the fast path reads as a part of the target."""
    for method in ("GET", "HEAD"):
        for _ in range(3):
            assert (await site.request(method, f"{target}?{PRESIGNED}")).status == 404
    for _ in range(3):
        assert (await site.get(f"/about.html?{PRESIGNED}")).body == b"about.html"


async def test_a_client_of_s3_gets_no_sibling(site: Proxy) -> None:
    """S3 does not negotiate, so the bytes, the length and the ETag are those of the key, whatever is accepted."""
    assert (await site.get("/a.js", Accept_Encoding="br")).body == b"a.js.br"
    for target, fields in (("/a.js", SIGNED), (f"/a.js?{PRESIGNED}", {})):
        for _ in range(3):
            response = await site.request("GET", target, {**fields, "Accept-Encoding": "br"})
            assert (response.body, response.headers.get("Content-Encoding")) == (b"a.js", None)


async def test_the_root_of_a_site_is_a_bucket(site: Proxy) -> None:
    """A client of S3 that reads the path of a site means the bucket, and gets no index page."""
    assert (await site.get("/")).body == b"index.html"
    assert error_of(await site.request("GET", "/", SIGNED)) == "NotImplemented"
    assert (await site.get(f"/?{PRESIGNED}")).status == 501


async def test_hits_of_a_site_are_prepared(site: Proxy) -> None:
    """Pages of a site take the fast path for browsers, and only clients of S3 are left to the ordinary one (I26)."""
    assert site.app.fast_path is not None
    before = site.app.fast_path.served
    for target in ("/", "/about", "/docs/", "/a.js"):
        assert (await site.get(target, Accept_Encoding="br")).status == 200
    assert site.app.fast_path.served == before + 4
    assert (await site.request("GET", "/about.html", SIGNED)).body == b"about.html"
    assert site.app.fast_path.served == before + 4


async def test_request_ids_are_in_the_log(proxy: Proxy) -> None:
    """The id that a client of S3 reports finds the line of its request."""
    response = await proxy.request("GET", "/none", SIGNED)
    (line,) = proxy.log
    assert line["request_id"] == response.headers["x-amz-request-id"]


async def test_boto3_understands_refusals(start: StartProxy, s3: S3) -> None:
    """An SDK prints the reason of what is not implemented, with S3's code."""
    proxy = await start(
        mounts=[{"path": "/b/", "bucket": s3.bucket, "methods": ["GET", "PUT", "DELETE"]}], uploads=None
    )
    s3.put("x", BODY)
    client, named = boto(proxy), {"Bucket": "b", "Key": "x"}

    def refused() -> None:
        for call, given in (
            (client.get_object_acl, named),
            (client.get_object_tagging, named),
            (client.put_object_tagging, {**named, "Tagging": {"TagSet": []}}),
            (client.create_multipart_upload, named),
            (client.list_objects_v2, {"Bucket": "b"}),
            (client.list_objects, {"Bucket": "b"}),
            (client.get_bucket_location, {"Bucket": "b"}),
            (client.list_buckets, {}),
            (client.copy_object, {**named, "CopySource": "b/x"}),
        ):
            with pytest.raises(ClientError) as raised:
                call(**given)
            assert raised.value.response["Error"]["Code"] == "NotImplemented", call
        with pytest.raises(client.exceptions.NoSuchKey):
            client.get_object(Bucket="b", Key="none")
        assert client.get_object(**named)["Body"].read() == BODY

    await asyncio.to_thread(refused)
    assert s3.get("x") == BODY


# --- writes --------------------------------------------------------------------------------------------------


async def test_put_object(proxy: Proxy, s3: S3) -> None:
    """A write of a client of S3 has S3's response: 200, no body, the ETag, an id, and no version without versions."""
    response = await proxy.request("PUT", "/x", SIGNED, BODY)
    assert (response.status, response.body, response.headers["ETag"]) == (200, b"", s3.head("x")["ETag"])
    assert response.headers["x-amz-request-id"] == proxy.log[0]["request_id"]
    assert not {"x-amz-version-id", "Location"} & response.headers.keys()
    assert (await proxy.get("/x")).body == BODY
    plain = await proxy.request("PUT", "/x", body=BODY)
    assert (plain.status, plain.json()) == (201, {"key": "x"})


async def test_put_object_with_versions(proxy: Proxy, s3: S3) -> None:
    """The version id is that of the new version."""
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    response = await proxy.request("PUT", "/x", SIGNED, BODY)
    assert response.headers["x-amz-version-id"] == s3.head("x")["VersionId"]


async def test_post_is_not_of_s3(proxy: Proxy, s3: S3) -> None:
    """S3 has no POST that makes a key, so its response names the key also to a client of S3."""
    response = await proxy.request("POST", "/", SIGNED, BODY)
    assert (response.status, s3.keys()) == (201, [response.json()["key"]])


async def test_delete_object(proxy: Proxy, s3: S3) -> None:
    """A delete is a 204 with an id."""
    s3.put("x", BODY)
    response = await proxy.request("DELETE", "/x", SIGNED)
    assert (response.status, "x-amz-request-id" in response.headers, s3.keys()) == (204, True, [])


async def test_boto3_writes(start: StartProxy, s3: S3) -> None:
    """boto3 stores and deletes objects, by its own defaults and with unsigned requests, and repeats nothing."""
    proxy = await start(mounts=[{**as_bucket(s3), "methods": ["GET", "PUT", "DELETE"]}], uploads=None)
    clients = [boto(proxy), boto(proxy, signature_version=UNSIGNED), boto(proxy, signature_version="s3")]

    def write() -> None:
        for number, client in enumerate(clients):
            named = {"Bucket": "b", "Key": f"folder/a b+{number}.txt"}
            done = client.put_object(**named, Body=BODY, Metadata={"a": "b"})
            assert done["ETag"] == s3.head(named["Key"])["ETag"]
            again = client.put_object(**named, Body=io.BytesIO(BODY), Metadata={"a": "b"}, ChecksumAlgorithm="SHA256")
            assert again["ETag"] == done["ETag"]
            with pytest.raises(ClientError, match="PreconditionFailed"):
                client.put_object(**named, Body=b"new", IfNoneMatch="*")
            found = client.get_object(**named)
            assert (found["Body"].read(), found["Metadata"]) == (BODY, {"a": "b"})
            client.delete_object(**named)
        client.put_object(Bucket="b", Key="y", Body=b"")
        client.delete_objects(Bucket="b", Delete={"Objects": [{"Key": "y"}, {"Key": "z"}]})

    await asyncio.to_thread(write)
    assert s3.keys() == []
