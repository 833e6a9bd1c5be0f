"""The multipart uploads of a chaos origin. Their parts are invisible until an upload is completed (S3 API)."""

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload. `headers` are those of CreateMultipartUpload with lower-case names, `parts` are by number."""

    key: str
    headers: Mapping[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


class NoSuchUpload(Exception):
    """The upload was completed or aborted, or it never began."""


class UploadHandler:
    def __init__(self) -> None:
        self._running: dict[str, Upload] = {}
        self._numbers = itertools.count(1)

    @property
    def running(self) -> dict[str, Upload]:
        """The running uploads by id."""
        return dict(self._running)

    def begin(self, key: str, headers: Mapping[str, str]) -> str:
        number = f"upload-{next(self._numbers)}"
        self._running[number] = Upload(key, headers)
        return number

    def part(self, number: str, place: int, data: bytes) -> str:
        """Store a part. Returns its ETag."""
        self._find(number).parts[place] = data
        return f'"{hashlib.md5(data).hexdigest()}"'

    def completed(self, number: str, named: bytes) -> tuple[Upload, bytes]:
        """Complete an upload. Returns it and its bytes: the parts in the order of the XML in `named`."""
        upload = self._find(number)
        places = [int(place) for place in re.findall(rb"<PartNumber>(\d+)</PartNumber>", named)]
        assert places == sorted(places)
        data = b"".join(upload.parts[place] for place in places)
        del self._running[number]
        return upload, data

    def abort(self, number: str) -> None:
        self._find(number)
        del self._running[number]

    def listed(self, bucket: str) -> bytes:
        """Return the XML of ListMultipartUploads."""
        found = "".join(
            f"<Upload><Key>{upload.key}</Key><UploadId>{number}</UploadId></Upload>"
            for number, upload in self._running.items()
        )
        return f"<ListMultipartUploadsResult><Bucket>{bucket}</Bucket>{found}</ListMultipartUploadsResult>".encode()

    def _find(self, number: str) -> Upload:
        try:
            return self._running[number]
        except KeyError:
            raise NoSuchUpload(number) from None
