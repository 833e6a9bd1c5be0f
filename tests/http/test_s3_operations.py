"""The operation of a request is the one that botocore's model of the S3 API has for it."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.session
import pytest
from botocore.awsrequest import prepare_request_dict
from botocore.config import Config
from botocore.model import Shape

from bucketfront.http.s3_operations import Named, Operation, operation_of

CLIENT = botocore.session.get_session().create_client(
    "s3",
    region_name="us-east-1",
    endpoint_url="http://s3.example",
    aws_access_key_id="a",
    aws_secret_access_key="b",
    config=Config(s3={"addressing_style": "path"}),
)
MODEL = CLIENT.meta.service_model
OURS = {operation.value for operation in Operation} - {""}
# These are no requests to S3's own endpoint, or have no path of their own.
OUTSIDE = {"WriteGetObjectResponse", "CreateSession", "ListDirectoryBuckets"}


def value_of(name: str, shape: Shape) -> Any:  # noqa: PLR0911 - a table
    """Return a value of a shape, with all that it needs."""
    match shape.type_name:
        case "structure":
            needed = shape.required_members or (list(shape.members)[:1] if shape.is_tagged_union else [])
            return {member: value_of(member, shape.members[member]) for member in needed}
        case "list":
            return [value_of(name, shape.member)]
        case "integer" | "long":
            return 1
        case "boolean":
            return True
        case "timestamp":
            return 0
        case "blob":
            return b"x"
        case _:
            if getattr(shape, "enum", None):
                return shape.enum[0]
            return "bucket" if name == "Bucket" else "b/k".ljust(shape.metadata.get("min", 0), "k")


def sent(name: str, **further: Any) -> tuple[str, Named, list[str], list[str]]:
    """Return what decides of the request that botocore would send for an operation."""
    model = MODEL.operation_model(name)
    parameters = {**(value_of("", model.input_shape) if model.input_shape else {}), **further}
    parameters = CLIENT._emit_api_params(parameters, model, {"client_region": "us-east-1", "client_config": None})
    url = "http://s3.example"
    request = CLIENT._convert_to_request_dict(parameters, model, url, {}, None, set_user_agent_header=False)
    prepare_request_dict(request, url)
    parts = urlsplit(request["url"])
    # botocore puts the bucket into the path, or into the host, with the endpoint.
    named = Named.OBJECT if len(parts.path) > 1 else Named.BUCKET if "Bucket" in parameters else Named.SERVICE
    names = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return request["method"], named, names, [key.lower() for key in request["headers"]]


@pytest.mark.parametrize("name", [name for name in MODEL.operation_names if name not in OUTSIDE])
def test_each_operation_of_the_model(name: str) -> None:
    """A request of the model is the operation of its name, or OTHER if that is none of ours."""
    found = operation_of(*sent(name))
    assert found.value == (name if name in OURS else "")


def test_all_of_ours_are_in_the_model() -> None:
    """Each operation has its name of the S3 API."""
    assert set(MODEL.operation_names) >= OURS


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("GetObject", {"VersionId": "v", "PartNumber": 2, "ResponseContentType": "a/b", "Range": "bytes=0-1"}),
        ("HeadObject", {"VersionId": "v", "PartNumber": 2}),
        (
            "ListObjectsV2",
            {"Prefix": "p", "Delimiter": "/", "MaxKeys": 7, "ContinuationToken": "t", "FetchOwner": True},
        ),
        ("ListObjects", {"Prefix": "p", "Delimiter": "/", "MaxKeys": 7, "Marker": "m", "EncodingType": "url"}),
        ("ListObjectVersions", {"Prefix": "p", "KeyMarker": "k", "VersionIdMarker": "v"}),
        ("ListMultipartUploads", {"Prefix": "p", "KeyMarker": "k", "UploadIdMarker": "v", "MaxUploads": 3}),
        ("ListParts", {"MaxParts": 3, "PartNumberMarker": 2}),
        ("DeleteObject", {"VersionId": "v"}),
        ("ListBuckets", {"MaxBuckets": 3, "Prefix": "p"}),
    ],
)
def test_with_further_parameters(name: str, parameters: dict[str, Any]) -> None:
    """What an operation takes besides leaves it what it is."""
    assert operation_of(*sent(name, **parameters)).value == name


@pytest.mark.parametrize(
    ("method", "named", "parameters"),
    [
        ("GET", Named.OBJECT, ["acl"]),
        ("GET", Named.OBJECT, ["versionId", "acl"]),
        ("GET", Named.OBJECT, ["new-parameter"]),
        ("PUT", Named.OBJECT, ["tagging"]),
        ("PUT", Named.OBJECT, ["uploadId"]),
        ("POST", Named.BUCKET, []),
        ("PATCH", Named.OBJECT, []),
        ("GET", Named.BUCKET, ["versioning"]),
    ],
)
def test_what_is_not_known_is_another(method: str, named: Named, parameters: list[str]) -> None:
    """A request with a parameter that an operation does not take is never taken for that operation."""
    assert operation_of(method, named, parameters, []) is Operation.OTHER


LISTS = {
    Operation.LIST_OBJECTS: [],
    Operation.LIST_OBJECTS_V2: ["list-type"],
    Operation.LIST_OBJECT_VERSIONS: ["versions"],
    Operation.LIST_MULTIPART_UPLOADS: ["uploads"],
}
OF_LISTS = [
    "marker", "key-marker", "version-id-marker", "upload-id-marker", "max-keys", "max-uploads", "start-after",
    "continuation-token", "fetch-owner", "delimiter", "encoding-type", "prefix", "metadata",
]  # fmt: skip


@pytest.mark.parametrize("operation", LISTS)
@pytest.mark.parametrize("parameter", OF_LISTS)
def test_lists_with_a_parameter_of_another_list(operation: Operation, parameter: str) -> None:
    """A list with a parameter of another one, or with MinIO's `metadata`, is still that list, because S3 ignores it."""
    assert operation_of("GET", Named.BUCKET, [*LISTS[operation], parameter], []) is operation


@pytest.mark.parametrize("operation", LISTS)
@pytest.mark.parametrize("parameter", ["acl", "policy", "tagging", "versioning", "object-lock", "new-parameter"])
def test_sub_resources_are_no_lists(operation: Operation, parameter: str) -> None:
    """A sub-resource, or a parameter that is not known, selects another operation, beside those of a list as well."""
    assert operation_of("GET", Named.BUCKET, [*LISTS[operation], parameter], []) is Operation.OTHER
    assert operation_of("GET", Named.BUCKET, ["location", "prefix"], []) is Operation.OTHER


def test_signatures_and_names_do_not_count() -> None:
    """The parameters of a signed URL, and the name that SDKs give an operation, change nothing."""
    assert operation_of("GET", Named.OBJECT, ["X-Amz-Signature", "X-Amz-Date", "x-id"], []) is Operation.GET_OBJECT
