"""The multipart uploads of a chaos origin: parts that nobody sees until they are completed (S3 API)."""

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Upload:
    """`headers` are of CreateMultipartUpload, names in lower case; `parts` by number."""

    key: str
    headers: Mapping[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


class NoSuchUpload(Exception):
    """It was completed or aborted, or never begun."""


class UploadHandler:
    def __init__(self) -> None:
        self._running: dict[str, Upload] = {}
        self._numbers = itertools.count(1)

    @property
    def running(self) -> dict[str, Upload]:
        """Begun, and neither completed nor aborted, by id."""
        return dict(self._running)

    def begin(self, key: str, headers: Mapping[str, str]) -> str:
        number = f"upload-{next(self._numbers)}"
        self._running[number] = Upload(key, headers)
        return number

    def part(self, number: str, place: int, data: bytes) -> str:
        """Returns its ETag."""
        self._find(number).parts[place] = data
        return f'"{hashlib.md5(data).hexdigest()}"'

    def completed(self, number: str, named: bytes) -> tuple[Upload, bytes]:
        """What it is, and its bytes: of the parts that the XML `named` has, in its order."""
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
        """ListMultipartUploads."""
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
