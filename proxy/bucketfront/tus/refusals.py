"""Why a request of a resumable upload fails. Without imports of S3, so that each process may have it."""

from bucketfront.errors import ProxyError


class UnknownUpload(ProxyError):
    """No upload has this id, or it is gone."""


class UploadBusy(ProxyError):
    """Another request holds the upload."""


class TakenOver(ProxyError):
    """The client's next request came while this one waited for bytes."""


class UploadLost(ProxyError):
    """S3 does not know the upload, or its outcome is unknown. The client has to begin again."""
