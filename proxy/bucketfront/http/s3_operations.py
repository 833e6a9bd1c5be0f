"""Which operation of the S3 API a request means: by its method, what its path names, its query and its fields.

S3 API, "Actions". A parameter without a value selects an operation as one with a value does. Those that this module
does not know are OTHER: another program may know them, so they are never taken for one that it knows.
"""

from collections.abc import Collection, Mapping
from enum import Enum, auto


class Named(Enum):
    """What the path of a request names."""

    SERVICE = auto()
    BUCKET = auto()
    OBJECT = auto()


class Operation(Enum):
    """An operation, by its name in the S3 API."""

    LIST_BUCKETS = "ListBuckets"
    HEAD_BUCKET = "HeadBucket"
    GET_BUCKET_LOCATION = "GetBucketLocation"
    LIST_OBJECTS = "ListObjects"
    LIST_OBJECTS_V2 = "ListObjectsV2"
    LIST_OBJECT_VERSIONS = "ListObjectVersions"
    LIST_MULTIPART_UPLOADS = "ListMultipartUploads"
    DELETE_OBJECTS = "DeleteObjects"
    GET_OBJECT = "GetObject"
    HEAD_OBJECT = "HeadObject"
    GET_OBJECT_ATTRIBUTES = "GetObjectAttributes"
    PUT_OBJECT = "PutObject"
    COPY_OBJECT = "CopyObject"
    DELETE_OBJECT = "DeleteObject"
    CREATE_MULTIPART_UPLOAD = "CreateMultipartUpload"
    UPLOAD_PART = "UploadPart"
    UPLOAD_PART_COPY = "UploadPartCopy"
    COMPLETE_MULTIPART_UPLOAD = "CompleteMultipartUpload"
    ABORT_MULTIPART_UPLOAD = "AbortMultipartUpload"
    LIST_PARTS = "ListParts"
    OTHER = ""


_COPY_SOURCE = "x-amz-copy-source"

# Parameters that change nothing of what an operation is. `x-id` is what SDKs name it.
# A list ignores the parameters of other lists, as S3 does. `metadata` is MinIO's.
_OF_LISTS = frozenset({
    "continuation-token", "delimiter", "encoding-type", "fetch-owner", "key-marker", "marker", "max-keys",
    "max-uploads", "metadata", "prefix", "start-after", "upload-id-marker", "version-id-marker",
})  # fmt: skip
_OF_READS = frozenset({
    "partNumber", "response-cache-control", "response-content-disposition", "response-content-encoding",
    "response-content-language", "response-content-type", "response-expires", "versionId",
})  # fmt: skip

_Row = tuple[Operation, frozenset[str], frozenset[str]]


def _row(operation: Operation, needed: str = "", permitted: Collection[str] = ()) -> _Row:
    """Return an operation with the parameters that select it, and those that it takes besides."""
    selecting = frozenset(needed.split())
    return operation, selecting, selecting | frozenset(permitted)


# The first row counts whose selecting parameters are all there.
_TABLE: Mapping[tuple[Named, str], tuple[_Row, ...]] = {
    (Named.SERVICE, "GET"): (
        _row(Operation.LIST_BUCKETS, permitted=("bucket-region", "continuation-token", "max-buckets", "prefix")),
    ),
    (Named.BUCKET, "HEAD"): (_row(Operation.HEAD_BUCKET),),
    (Named.BUCKET, "GET"): (
        _row(Operation.GET_BUCKET_LOCATION, "location"),
        _row(Operation.LIST_MULTIPART_UPLOADS, "uploads", {*_OF_LISTS, "list-type"}),
        _row(Operation.LIST_OBJECT_VERSIONS, "versions", {*_OF_LISTS, "list-type"}),
        _row(Operation.LIST_OBJECTS_V2, "list-type", _OF_LISTS),
        _row(Operation.LIST_OBJECTS, permitted=_OF_LISTS),
    ),
    (Named.BUCKET, "POST"): (_row(Operation.DELETE_OBJECTS, "delete"),),
    (Named.OBJECT, "GET"): (
        _row(Operation.LIST_PARTS, "uploadId", ("max-parts", "part-number-marker")),
        _row(Operation.GET_OBJECT_ATTRIBUTES, "attributes", ("versionId",)),
        _row(Operation.GET_OBJECT, permitted=_OF_READS),
    ),
    (Named.OBJECT, "HEAD"): (_row(Operation.HEAD_OBJECT, permitted=_OF_READS),),
    (Named.OBJECT, "PUT"): (
        _row(Operation.UPLOAD_PART, "partNumber uploadId"),
        _row(Operation.PUT_OBJECT),
    ),
    (Named.OBJECT, "DELETE"): (
        _row(Operation.ABORT_MULTIPART_UPLOAD, "uploadId"),
        _row(Operation.DELETE_OBJECT, permitted=("versionId",)),
    ),
    (Named.OBJECT, "POST"): (
        _row(Operation.CREATE_MULTIPART_UPLOAD, "uploads"),
        _row(Operation.COMPLETE_MULTIPART_UPLOAD, "uploadId"),
    ),
}  # fmt: skip
_COPIES = {Operation.PUT_OBJECT: Operation.COPY_OBJECT, Operation.UPLOAD_PART: Operation.UPLOAD_PART_COPY}


def operation_of(method: str, named: Named, parameters: Collection[str], fields: Collection[str]) -> Operation:
    """Return the operation of a request.

    `parameters` are the names in the query, and `fields` those of the head in lower case. A parameter that the
    operation does not take may select another one, so such a request is OTHER. Those of a signature count nowhere.
    """
    counted = {name for name in parameters if name != "x-id" and not name.lower().startswith("x-amz-")}
    for operation, needed, permitted in _TABLE.get((named, method), ()):
        if needed <= counted:
            if not counted <= permitted:
                return Operation.OTHER
            return _COPIES.get(operation, operation) if _COPY_SOURCE in fields else operation
    return Operation.OTHER
