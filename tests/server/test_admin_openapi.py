"""`/openapi.json` describes the admin port, and the port does as it is described (I27)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_under_test import S3, Proxy, StartProxy
from pydantic import BaseModel, TypeAdapter, ValidationError
from rows import each_row
from wire import Response

from bucketfront.admin import openapi
from bucketfront.admin.openapi import OPERATIONS
from bucketfront.admin.operation import Failure, Media, Operation
from bucketfront.admin.purges import PurgeRequest
from bucketfront.admin.warming import WarmRequest
from bucketfront.cache import Statistics

TOKEN = "0123456789abcdef"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
PATHS = b'{"paths": ["/x"]}'
BODIES: dict[type[BaseModel], bytes] = {PurgeRequest: PATHS, WarmRequest: PATHS}  # where an empty one is refused
QUERIES = {"/api/v1/explain": "?path=/x"}  # of paths that need one


def body_of(operation: Operation) -> bytes | None:
    if operation.takes is not None:
        return b"no archive" if operation.takes is Media.TAR else b'{"Records": []}'
    return None if operation.request is None else BODIES.get(operation.request, b"{}")


async def url_of(proxy: Proxy, path: str) -> str:
    """Return a URL of a path of the document. The id is that of a job that has begun."""
    if "{" not in path:
        return path + QUERIES.get(path, "")
    return path.replace("{id}", str((await proxy.admin("POST", "/api/v1/warm", PATHS, RIGHT)).json()["id"]))


def assert_described(path: str, method: str, response: Response) -> None:
    """Assert that the document has the status, the type and the fields of a response."""
    described = openapi.document("1")["paths"][path][method.lower()]["responses"]
    assert str(response.status) in described, (path, method, response.status)
    if method == "HEAD":
        assert response.body == b""
        return
    media = response.headers["Content-Type"].partition(";")[0]
    assert media in described[str(response.status)]["content"]
    own = OPERATIONS[path].responses.get(response.status, ())
    models = [body.model for body in own if body.media.value == media] or [Failure]
    if models[0] is not None:
        models[0].model_validate_json(response.body)


async def test_document(start: StartProxy) -> None:
    """The document is that of this version, all its references lead to schemas, and each path is there."""
    proxy = await start(invalidation={"webhook": {"token": TOKEN}})
    response = await proxy.admin("GET", "/openapi.json")
    assert response.headers["Content-Type"].startswith("application/json")
    found: dict[str, Any] = response.json()
    assert found["openapi"] == "3.1.0"
    assert found == json.loads(json.dumps(openapi.document(found["info"]["version"])))
    references = {text.partition('"')[0] for text in response.body.decode().split('"#/components/schemas/')[1:]}
    assert references == set(found["components"]["schemas"])
    for path, item in found["paths"].items():
        for method in item.keys() - {"parameters"}:
            url = await url_of(proxy, path)
            assert (await proxy.admin(method.upper(), url)).status not in (404, 405), (method, path)


@pytest.mark.parametrize("path", OPERATIONS)
async def test_each_path_responds_as_described(start: StartProxy, s3: S3, path: str) -> None:
    """With a token, without one, with a wrong one, and from a foreign page, each response is one of the document's."""
    proxy = await start(admin={"token": TOKEN}, invalidation={"webhook": {"token": TOKEN}})
    s3.put("x", b"data")
    await proxy.get("/x")
    operation, url = OPERATIONS[path], await url_of(proxy, path)
    success = min(operation.responses)
    for method in operation.methods:
        for fields, status in (
            (RIGHT, success),
            ({}, 200 if operation.is_probe or operation.is_page else 401),
            ({**RIGHT, "Origin": "https://evil.example"}, 200 if operation.is_probe else 403),
            ({**RIGHT, "Host": "evil.example"}, 200 if operation.is_probe else 421),
            ({**RIGHT, "Accept": "application/json"}, success),
        ):
            kind = {} if operation.takes is None else {"Content-Type": operation.takes.value}
            response = await proxy.admin(method, url, body_of(operation), {**fields, **kind})
            assert response.status == status, (method, path, fields)
            assert_described(path, method, response)


async def test_the_document_needs_the_token(start: StartProxy) -> None:
    """What the port can do is shown to operators alone."""
    proxy = await start(admin={"token": TOKEN})
    assert (await proxy.admin("GET", "/openapi.json")).status == 401
    assert (await proxy.admin("GET", "/openapi.json", headers=RIGHT)).status == 200


@each_row("body", [b"", b"{", b"[]", b"null", b'{"paths": "/x"}', b'{"all": 1}', b"\xff", b"{}"])
async def test_a_malformed_purge(proxy: Proxy, body: bytes) -> None:
    """A body that is none of the schema's gets a 400 of the document."""
    response = await proxy.admin("POST", "/api/v1/purge", body)
    assert response.status == 400
    assert_described("/api/v1/purge", "POST", response)


@given(
    st.dictionaries(
        st.sampled_from(["paths", "prefix", "soft", "x"]),
        st.none() | st.booleans() | st.text() | st.lists(st.text()) | st.integers(),
    )
)
def test_the_schema_is_what_is_validated(wanted: dict[str, object]) -> None:
    """The document's schema of a purge has the fields that the request's model accepts, and no others."""
    schema = openapi.document("1")["components"]["schemas"]["PurgeRequest"]
    try:
        PurgeRequest.model_validate_json(json.dumps(wanted))
    except ValidationError:
        return
    assert set(wanted) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_statistics_are_described() -> None:
    """A figure that is added to the statistics is in the document, because both come from one class."""
    found = openapi.document("1")["components"]["schemas"]["Stats"]["properties"]
    assert found.keys() - {"version", "summary"} == TypeAdapter(Statistics).json_schema()["properties"].keys()
