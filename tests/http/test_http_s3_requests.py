"""The requests of S3 clients: S3 API, "Authenticating Requests" and "Error responses"."""

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from rows import each_row

from bucketfront.http import s3_requests
from bucketfront.http.s3_requests import Dialect

CREDENTIAL = "Credential=AKID/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@each_row(
    ("fields", "target"),
    [
        ({"Authorization": f"AWS4-HMAC-SHA256 {CREDENTIAL}"}, "/x"),
        ({"authorization": f"AWS4-ECDSA-P256-SHA256 {CREDENTIAL}"}, "/x"),
        ({"Authorization": "AWS AKID:signature="}, "/x"),
        ({"amz-sdk-invocation-id": "1"}, "/x"),
        ({}, "/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0"),
        ({}, "/x?versionId=1&X-Amz-Signature=0"),
        ({}, "/x?AWSAccessKeyId=AKID&Expires=1&Signature=0"),
    ],
)
def test_clients_of_s3(fields: dict[str, str], target: str) -> None:
    """A signature of any version, in a field or in the query, and the mark of an AWS SDK show a client of S3."""
    assert s3_requests.dialect_of(CIMultiDict(fields), target) is Dialect.S3


@each_row(
    ("fields", "target"),
    [
        ({}, "/x"),
        ({"Authorization": "Basic QVdTOng="}, "/x"),
        ({"Authorization": "Bearer AWS4-HMAC-SHA256 x"}, "/x"),
        ({"Authorization": "AWSX y"}, "/x"),
        ({"x-amz-meta-a": "b", "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, "/x"),
        ({}, "/X-Amz-Signature=0"),
        ({}, "/x?a=X-Amz-Signature=0"),
        ({}, "/x?acl"),
    ],
)
def test_other_clients(fields: dict[str, str], target: str) -> None:
    """Nothing else shows a client of S3, neither a single header of S3 nor a sub-resource."""
    assert s3_requests.dialect_of(CIMultiDict(fields), target) is Dialect.HTTP


@given(st.text(), st.text())
def test_error_documents_are_xml(message: str, target: str) -> None:
    """Any message and any target give a document, without what XML cannot hold, and without the query (I28)."""
    root = ET.fromstring(s3_requests.error_document("NoSuchKey", message, f"/{target}?SECRET", "1"))
    assert [child.tag for child in root] == ["Code", "Message", "Resource", "RequestId"]
    found = str(root.findtext("Message"))
    assert [char for char in found if char.isprintable() and char != "?"] == [
        char for char in message if char.isprintable() and char != "?"
    ]
    assert "SECRET" not in str(root.findtext("Resource"))


def test_codes() -> None:
    """Each status has a code of its class, also a rare one."""
    assert (s3_requests.error_code(404), s3_requests.error_code(416)) == ("NoSuchKey", "InvalidRange")
    assert (s3_requests.error_code(418), s3_requests.error_code(507)) == ("InvalidRequest", "InternalError")
