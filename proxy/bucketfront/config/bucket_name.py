"""What a mount may have as its bucket: a name, or an ARN that stands for one. Others are refused with the reason."""

import ipaddress
import re

_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")  # S3's own names are shorter, but old buckets and other servers have these
_NEW_NAME = re.compile(r"[a-z0-9.-]{3,63}")
_BUCKET_ARN = re.compile(r"arn:aws[a-z-]*:s3:::([^/*]*)(.*)", re.DOTALL)
_ACCESS_POINT_ARN = re.compile(r"arn:aws[a-z-]*:s3:[a-z0-9-]+:[0-9]{12}:accesspoint[:/][a-z0-9-]{3,50}")
# Of the domains of AWS's partitions; an interface endpoint of a VPC lies below one as well.
_AWS_HOST = re.compile(r"https?://(?:[^/:]+\.)?(?:amazonaws\.(?:com|com\.cn|eu)|api\.aws)(?::[0-9]+)?/?")

_NOT_A_NAME = "must be the name of a bucket, without 's3://' and without a path (that is prefix)"
_OBJECT_LAMBDA = (
    "an S3 Object Lambda access point makes each response anew, without an ETag, so that nothing could be cached: give"
    " the bucket behind it"
)
_OUTPOSTS = "S3 on Outposts is not supported: its requests need the signature of another service than S3"
_MULTI_REGION = (
    "a multi-region access point needs signatures for all regions at once (SigV4a), which this build cannot make: give"
    " the bucket of one region, or an access point of one region"
)
_DIRECTORY = (
    "a directory bucket (S3 Express One Zone) needs session credentials (CreateSession), which are not supported: give"
    " a general purpose bucket"
)
_TABLE = "a table bucket (S3 Tables) holds tables and no objects to serve"

# By the ends of names that S3 reserves: S3 User Guide, "General purpose bucket naming rules".
_RESERVED_ENDS = {"--ol-s3": _OBJECT_LAMBDA, ".mrap": _MULTI_REGION, "--table-s3": _TABLE}
_AWS_ENDS = {"--x-s3": _DIRECTORY, "--xa-s3": _DIRECTORY, "--op-s3": _OUTPOSTS}


def bucket_name(text: str) -> str:
    """Return the bucket of a mount. `arn:aws:s3:::media` is the bucket media. Raises ValueError with the reason."""
    if text.startswith("arn:"):
        return _of_arn(text)
    if not _NAME.fullmatch(text):
        raise ValueError(_NOT_A_NAME)
    for end, reason in _RESERVED_ENDS.items():
        if text.endswith(end):
            raise ValueError(reason)
    if ".." in text or text[0] in ".-" or text[-1] in ".-" or _is_ip_address(text):
        raise ValueError(
            "must be a name that S3 takes: a letter or digit at both ends, no two dots in a row, and no IP address"
        )
    return text


def _of_arn(arn: str) -> str:
    if found := _BUCKET_ARN.fullmatch(arn):
        if found[2]:
            raise ValueError("must be the ARN of a bucket, without a path behind it (that is prefix)")
        return bucket_name(found[1])
    if ":s3-object-lambda:" in arn:
        raise ValueError(_OBJECT_LAMBDA)
    if ":s3-outposts:" in arn:
        raise ValueError(_OUTPOSTS)
    if ":s3express:" in arn:
        raise ValueError(_DIRECTORY)
    if ":s3tables:" in arn:
        raise ValueError(_TABLE)
    if re.fullmatch(r"arn:aws[a-z-]*:s3::[0-9]{12}:accesspoint[:/].*", arn):
        raise ValueError(_MULTI_REGION)
    if not _ACCESS_POINT_ARN.fullmatch(arn):
        raise ValueError(
            "must be arn:aws:s3:::BUCKET, or the ARN of an access point: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME"
        )
    return arn


def misplaced(bucket: str, endpoint_url: str | None) -> str | None:
    """Return why the endpoint cannot have a bucket of `bucket_name`, or None if it can."""
    is_aws = endpoint_url is None or _AWS_HOST.fullmatch(endpoint_url) is not None
    if bucket.startswith("arn:") and not is_aws:
        return (
            "the ARN of an access point belongs to AWS, and origin.endpoint_url is another S3: give the name of a"
            " bucket there"
        )
    if endpoint_url == "embedded" and not _NEW_NAME.fullmatch(bucket):
        return "must have 3 to 63 lower-case letters, digits, dots and hyphens, as every new bucket has"
    reasons = [reason for end, reason in _AWS_ENDS.items() if bucket.endswith(end)] if is_aws else []
    return reasons[0] if reasons else None


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
