"""Parameters that a bucket may require of each request: the account that pays, and the account that owns the bucket.

See S3 User Guide, "Using Requester Pays buckets" and "Verifying bucket ownership with bucket owner condition".
"""

from typing import Any

from bucketfront.config.origin_settings import OriginSettings


class BucketTerms:
    """Adds the parameters of the settings to every operation that takes them, so that no call can omit them."""

    def __init__(self, settings: OriginSettings) -> None:
        self._params: dict[str, str] = {}
        if settings.request_payer:
            self._params["RequestPayer"] = "requester"
        if settings.expected_bucket_owner is not None:
            self._params["ExpectedBucketOwner"] = settings.expected_bucket_owner

    def register(self, events: Any) -> None:
        """Register with the events of botocore's client, unless the settings have no terms."""
        if self._params:
            events.register("provide-client-params.s3", self._add)

    def _add(self, params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        taken = model.input_shape.members
        return {**{name: value for name, value in self._params.items() if name in taken}, **params}
