"""Objects that are encrypted with a key of their owner (SSE-C) are refused with that reason."""

import pytest
from fakes import response
from proxy_under_test import S3, StartProxy
from relay import Seen
from rows import each_row

from bucketfront.server.fast_path.recogniser import recogniser

# S3's response to a GET without the key. A response to HEAD has no body.
TEXT = (
    b"<Error><Code>InvalidRequest</Code><Message>The object was stored using a form of Server Side Encryption. The "
    b"correct parameters must be provided to retrieve the object.</Message></Error>"
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_object_with_a_key_of_its_owner(start: StartProxy, s3: S3, method: str) -> None:
    """S3's 400 for an object with SSE-C is a 403 with the reason, also in the log; other objects are served."""
    s3.put("x", b"data")
    proxy = await start()

    async def encrypted(seen: Seen) -> bytes | None:
        if "/secret" not in seen.target:
            return None
        return response("400 Bad Request", b"" if seen.method == "HEAD" else TEXT, Content_Type="application/xml")

    proxy.relay.on_request = encrypted
    found = await proxy.request(method, "/secret")
    assert found.status == 403
    assert method == "HEAD" or b"SSE-C" in found.body
    assert proxy.log[-1]["fault"] == "ObjectEncrypted"
    assert (await proxy.get("/x")).body == b"data"


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("prefix", ["x-amz-server-side-encryption-customer-", "X-Amz-Server-Side-Encryption-Customer-"])
async def test_a_read_with_a_key(start: StartProxy, s3: S3, prefix: str, fast_path: bool) -> None:
    """A read with a key of SSE-C gets 501 with the reason, whether the object is cached or not."""
    s3.put("x", b"data")
    proxy = await start(server={"fast_path": fast_path})
    for _ in range(2):
        for name in ("algorithm", "key", "key-MD5"):
            for method in ("GET", "HEAD"):
                found = await proxy.request(method, "/x", {f"{prefix}{name}": "AES256"})
                assert found.status == 501
                assert method == "HEAD" or b"SSE-C" in found.body
        plain = {"x-amz-server-side-encryption": "AES256", "X-Forwarded-For": "1.2.3.4"}
        assert (await proxy.request("GET", "/x", plain)).body == b"data"


@each_row(
    ("line", "plain", "with_stage"),
    [
        ("X-Forwarded-For: 1", True, True),
        ("x-amz-date: 1", True, True),
        ("x-amz-server-side-encryption: AES256", True, True),
        ("x-amz-server-side-encryption-customer-key: a", False, False),
        ("X-AMZ-SERVER-SIDE-ENCRYPTION-CUSTOMER-ALGORITHM: a", False, False),
        ("X-Api-Key: 1", True, False),
        ("x-api-keys: 1", True, True),
        ("x: 1", True, False),
        ("X-: 1", True, True),
        ("xx-a: 1", True, True),
    ],
)
def test_which_names_the_fast_path_recognises(line: str, plain: bool, with_stage: bool) -> None:
    """A name that begins with x is left to the ordinary path only if it names a key, or if a stage reads it."""
    request = f"GET /a HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n".encode()
    assert (recogniser(frozenset())(request) is not None) == plain
    assert (recogniser(frozenset({"x-api-key", "x"}))(request) is not None) == with_stage
