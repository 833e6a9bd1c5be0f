"""What each error code of S3 means, in one table. It decides the exception, and so the status, retries and staleness.

The codes are those of the S3 API ("Error responses"), and some of compatible servers. See
docs/invariants.md#whose-fault.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bucketfront.errors import Fault


@dataclass(frozen=True, slots=True)
class Meaning:
    """Whose fault an error is. `cure` is what an operator can do, empty if there is nothing."""

    fault: Fault
    cure: str = ""
    statuses: Sequence[int] = range(1000)
    is_of_writes: bool = False


_ACCESS = "check the bucket's policy and that of the credentials"
_KEYS = "check origin.credentials"
_EXPIRED = "the temporary credentials have expired, so check their source, see origin.credentials"
_ACCOUNT = "check the AWS account of origin.credentials"
_REGION = "check origin.region"
_PLACE = "the bucket lives elsewhere: see origin.region and origin.endpoint_url"
_BUCKET = "check the bucket of the mount"
_ENDPOINT = "check origin.endpoint_url and origin.addressing_style"
_KMS = "check the KMS key that encrypts the object"
_CLOCK = "set this machine's clock"
_QUOTA = "the origin has no space left for the bucket or the account"

_REQUEST = Meaning(Fault.REQUEST, statuses=range(400, 500))
_WRITE = Meaning(Fault.REQUEST, statuses=(*range(400, 500), 501), is_of_writes=True)
_OUR_WRITE = Meaning(
    Fault.CONFIGURATION, "bucketfront sent a request that the origin does not understand", is_of_writes=True
)
_ORIGIN = Meaning(Fault.ORIGIN)
_LOAD = Meaning(Fault.LOAD)
_UNSIGNED = Meaning(Fault.CREDENTIALS, "the bucket needs signed requests, see origin.credentials")
_NO_SUCH_BUCKET = Meaning(Fault.CONFIGURATION, f"{_BUCKET}, or set origin.create_bucket")

_BY_CODE: Mapping[str, Meaning] = {
    # --- the object ------------------------------------------------------------------------------------------
    "AccessDenied": Meaning(Fault.OBJECT, _ACCESS, (403,)),
    "InvalidObjectState": Meaning(Fault.OBJECT, "the object is archived, so restore it first", (403,)),
    # --- the client's request --------------------------------------------------------------------------------
    "KeyTooLongError": _REQUEST,
    "KeyTooLong": _REQUEST,
    "InvalidURI": _REQUEST,
    "InvalidObjectName": _REQUEST,
    "XMinioInvalidObjectName": _REQUEST,
    "XMinioInvalidResourceName": _REQUEST,
    "ParentIsFile": _REQUEST,
    "XMinioParentIsObject": _REQUEST,
    "BadDigest": _WRITE,
    "InvalidDigest": _WRITE,
    "EntityTooLarge": _WRITE,
    "MaxMessageLengthExceeded": _WRITE,
    "MetadataTooLarge": _WRITE,
    "InvalidTag": _WRITE,
    "InvalidStorageClass": _WRITE,
    "UnexpectedContent": _WRITE,
    "NotImplemented": _WRITE,
    "ConditionalRequestConflict": _WRITE,
    "MalformedXML": _OUR_WRITE,
    "MissingContentLength": _OUR_WRITE,
    "MissingRequestBodyError": _OUR_WRITE,
    "InvalidPart": _OUR_WRITE,
    "InvalidPartOrder": _OUR_WRITE,
    "EntityTooSmall": _OUR_WRITE,
    # --- our credentials -------------------------------------------------------------------------------------
    "InvalidAccessKeyId": Meaning(Fault.CREDENTIALS, _KEYS),
    "SignatureDoesNotMatch": Meaning(Fault.CREDENTIALS, f"{_KEYS} (the secret), origin.region and the clock"),
    "InvalidSecurity": Meaning(Fault.CREDENTIALS, _KEYS),
    "CredentialsNotSupported": Meaning(Fault.CREDENTIALS, _KEYS),
    "AuthFailure": Meaning(Fault.CREDENTIALS, _KEYS),
    "UnrecognizedClientException": Meaning(Fault.CREDENTIALS, _KEYS),
    "Unauthorized": Meaning(Fault.CREDENTIALS, _KEYS),
    "InvalidClientTokenId": Meaning(Fault.CREDENTIALS, _KEYS),
    "ExpiredToken": Meaning(Fault.CREDENTIALS, _EXPIRED),
    "ExpiredTokenException": Meaning(Fault.CREDENTIALS, _EXPIRED),
    "InvalidToken": Meaning(Fault.CREDENTIALS, _EXPIRED),
    "TokenRefreshRequired": Meaning(Fault.CREDENTIALS, _EXPIRED),
    "TokenCodeInvalidError": Meaning(Fault.CREDENTIALS, _EXPIRED),
    "InvalidSessionException": Meaning(Fault.CREDENTIALS, _EXPIRED),
    "MissingAuthenticationToken": _UNSIGNED,
    "MissingSecurityHeader": _UNSIGNED,
    "MissingSecurityElement": _UNSIGNED,
    "InvalidSignature": Meaning(Fault.CREDENTIALS, _KEYS),
    "UnsupportedSignature": Meaning(Fault.CREDENTIALS, _KEYS),
    "AccountProblem": Meaning(Fault.CREDENTIALS, _ACCOUNT),
    "AllAccessDisabled": Meaning(Fault.CREDENTIALS, _ACCOUNT),
    "NotSignedUp": Meaning(Fault.CREDENTIALS, _ACCOUNT),
    "OptInRequired": Meaning(Fault.CREDENTIALS, _ACCOUNT),
    "UserSuspended": Meaning(Fault.CREDENTIALS, _ACCOUNT),
    "UserProjectAccountProblem": Meaning(Fault.CREDENTIALS, _ACCOUNT),
    # --- our clock -------------------------------------------------------------------------------------------
    "RequestTimeTooSkewed": Meaning(Fault.CLOCK, _CLOCK),
    "RequestExpired": Meaning(Fault.CLOCK, _CLOCK),
    "RequestInTheFuture": Meaning(Fault.CLOCK, _CLOCK),
    # --- our configuration -----------------------------------------------------------------------------------
    "AuthorizationHeaderMalformed": Meaning(Fault.CONFIGURATION, _REGION),
    "AuthorizationQueryParametersError": Meaning(Fault.CONFIGURATION, _REGION),
    "InvalidRegion": Meaning(Fault.CONFIGURATION, _REGION),
    "IllegalLocationConstraintException": Meaning(Fault.CONFIGURATION, _REGION),
    "InvalidLocationConstraint": Meaning(Fault.CONFIGURATION, _REGION),
    "UnauthorizedAccess": Meaning(Fault.CONFIGURATION, _REGION),
    "UnauthorizedAccessError": Meaning(Fault.CONFIGURATION, _REGION),
    "PermanentRedirect": Meaning(Fault.CONFIGURATION, _PLACE),
    "TemporaryRedirect": Meaning(Fault.CONFIGURATION, _PLACE),
    "Redirect": Meaning(Fault.CONFIGURATION, _PLACE),
    "IncorrectEndpoint": Meaning(Fault.CONFIGURATION, _PLACE),
    "EndpointNotFound": Meaning(Fault.CONFIGURATION, _PLACE),
    "NoSuchBucket": _NO_SUCH_BUCKET,
    "InvalidBucketName": Meaning(Fault.CONFIGURATION, _BUCKET),
    "XMinioInvalidBucketName": Meaning(Fault.CONFIGURATION, _BUCKET),
    "InvalidBucketState": Meaning(Fault.CONFIGURATION, _BUCKET),
    "InvalidBucketOwnerAWSAccountID": Meaning(Fault.CONFIGURATION, "check the account that the bucket must belong to"),
    "InvalidAccessPoint": Meaning(Fault.CONFIGURATION, _BUCKET),
    "InvalidAccessPointAliasError": Meaning(Fault.CONFIGURATION, _BUCKET),
    "NoSuchAccessPoint": Meaning(Fault.CONFIGURATION, _BUCKET),
    "NoSuchMultiRegionAccessPoint": Meaning(Fault.CONFIGURATION, _BUCKET),
    "InvalidPayer": Meaning(Fault.CONFIGURATION, "check the requester's account"),
    "UserProjectMissing": Meaning(Fault.CONFIGURATION, "the bucket makes the requester pay"),
    "InvalidAddressingHeader": Meaning(Fault.CONFIGURATION, _ENDPOINT),
    "InvalidHostHeader": Meaning(Fault.CONFIGURATION, _ENDPOINT),
    "InvalidHttpMethod": Meaning(Fault.CONFIGURATION, _ENDPOINT),
    "UnexpectedIPError": Meaning(Fault.CONFIGURATION, _ACCESS),
    "KMS.DisabledException": Meaning(Fault.CONFIGURATION, _KMS),
    "KMS.InvalidKeyUsageException": Meaning(Fault.CONFIGURATION, _KMS),
    "KMS.KMSInvalidStateException": Meaning(Fault.CONFIGURATION, _KMS),
    "KMS.NotFoundException": Meaning(Fault.CONFIGURATION, _KMS),
    "InvalidEncryptionAlgorithmError": Meaning(Fault.CONFIGURATION, _KMS),
    "QuotaExceeded": Meaning(Fault.CONFIGURATION, _QUOTA),
    "XMinioStorageFull": Meaning(Fault.CONFIGURATION, _QUOTA),
    "XMinioBackendDown": _ORIGIN,
    # --- the load --------------------------------------------------------------------------------------------
    "SlowDown": _LOAD,
    "SlowDownRead": _LOAD,
    "SlowDownWrite": _LOAD,
    "Throttling": _LOAD,
    "ThrottlingException": _LOAD,
    "ThrottledException": _LOAD,
    "RequestThrottled": _LOAD,
    "RequestThrottledException": _LOAD,
    "RequestLimitExceeded": _LOAD,
    "BandwidthLimitExceeded": _LOAD,
    "TooManyRequests": _LOAD,
    "TooManyRequestsException": _LOAD,
    "TooMuchRequests": _LOAD,
    "KMS.ThrottlingException": _LOAD,
    # --- the origin ------------------------------------------------------------------------------------------
    "InternalError": _ORIGIN,
    "InternalFailure": _ORIGIN,
    "ServiceUnavailable": _ORIGIN,
    "ServiceFailure": _ORIGIN,
    "RequestTimeout": _ORIGIN,
    "RequestTimeoutException": _ORIGIN,
    "ConnectionClosedByRequester": _ORIGIN,
    "ResponseInterrupted": _ORIGIN,
    "IncompleteBody": _ORIGIN,
    "XAmzContentSHA256Mismatch": _ORIGIN,
    "OperationAborted": _ORIGIN,
    "XMinioServerNotInitialized": _ORIGIN,
}

_BY_STATUS: Mapping[int, Meaning] = {
    301: Meaning(Fault.CONFIGURATION, _PLACE),
    302: Meaning(Fault.CONFIGURATION, _PLACE),
    303: Meaning(Fault.CONFIGURATION, _PLACE),
    307: Meaning(Fault.CONFIGURATION, _PLACE),
    308: Meaning(Fault.CONFIGURATION, _PLACE),
    401: Meaning(Fault.CREDENTIALS, _KEYS),
    407: Meaning(Fault.CONFIGURATION, "a proxy between here and the origin wants credentials"),
    408: _ORIGIN,
    429: _LOAD,
    508: Meaning(Fault.CONFIGURATION, "origin.endpoint_url leads back to this proxy, directly or through others"),
    509: _LOAD,
}


# Codes that mean something else in a response to a request that a client of S3 has made: it chose the bucket, the body,
# the key of KMS and how fast it sends. In bucketfront's own requests these are its configuration's fault, or the
# origin's.
_CHOSEN_BY_CLIENTS = frozenset({
    "EntityTooSmall", "IllegalLocationConstraintException", "InvalidAccessPoint", "InvalidAccessPointAliasError",
    "InvalidBucketName", "InvalidBucketState", "InvalidEncryptionAlgorithmError", "InvalidLocationConstraint",
    "InvalidPart", "InvalidPartOrder", "KMS.DisabledException",
    "KMS.InvalidKeyUsageException", "KMS.KMSInvalidStateException", "KMS.NotFoundException", "MalformedXML",
    "MissingContentLength", "MissingRequestBodyError", "NoSuchAccessPoint", "NoSuchBucket",
    "NoSuchMultiRegionAccessPoint", "OperationAborted", "QuotaExceeded", "RequestTimeout",
    "XAmzContentSHA256Mismatch", "XMinioInvalidBucketName",
})  # fmt: skip


# Codes of facts about an object or an upload, which `error_translation` reads together with the request.
_FACTS = frozenset({
    "InvalidArgument", "InvalidRange", "InvalidRequest", "MethodNotAllowed", "NoSuchKey", "NoSuchUpload",
    "NoSuchVersion", "NotModified", "PreconditionFailed",
})  # fmt: skip


def is_known(code: str) -> bool:
    """Return whether a code is one of this module's, which are a closed set."""
    return code in _BY_CODE or code in _FACTS


def is_chosen_by_client(code: str, status: int) -> bool:
    """Return whether an error response is the fault of a request that a client of S3 has made."""
    return code in _CHOSEN_BY_CLIENTS and status in _REQUEST.statuses


def meaning(code: str, status: int, *, is_read: bool) -> Meaning | None:
    """Return the meaning of an error response, or None for a 4xx or 501 that neither table has.

    A compatible server may have codes of its own. Their status decides, and so it does if the code contradicts it.
    """
    found = _BY_CODE.get(code)
    if found is None or status not in found.statuses or (is_read and found.is_of_writes):
        found = _BY_STATUS.get(status)
    return _ORIGIN if found is None and status >= 500 and status != 501 else found
