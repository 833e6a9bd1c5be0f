"""Who may do what at an S3 that makes no such decision itself: the relay before it verifies signatures and rights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from relay import Seen, canned

from bucketfront.http import sigv4
from bucketfront.http.s3_refusal import S3Refused

OWN = "any"  # the key id and the secret of the proxy's own credentials


@dataclass(slots=True)
class Guard:
    """Sends S3's refusals to requests that are not signed, or not permitted. `clock` is that of S3.

    `secrets` are by key id, and `readable` the prefixes of the paths that each key may use. "" is the anonymous client.
    `asked` has the key id and the status of each decision on a request that is not the proxy's own.
    """

    clock: Callable[[], float]
    secrets: dict[str, str] = field(default_factory=dict)
    readable: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def __call__(self, seen: Seen) -> bytes | None:
        path, _, query = seen.target.partition("?")
        fields = {name: value for name, value in seen.headers.items() if name != "connection"}
        key_id, refused = "", ""
        try:
            claim = sigv4.claim_of(fields, query)
            if claim is not None:
                key_id = claim.key_id
                sigv4.verify(claim, self.secrets.get(key_id, ""), seen.method, path, query, fields)
                sigv4.check_time(claim, self.clock())
        except S3Refused as error:
            refused = error.refusal.value
        prefix = self.readable.get(key_id)
        if not refused and (prefix is None or not unquote(path).startswith(prefix)):
            refused = "AccessDenied"
        if key_id != OWN:
            self.asked.append((key_id, 403 if refused else 200))
        return canned(403, refused, "x-amz-request-id: of-s3") if refused else None
