"""The child process of the embedded origin: the S3 part of moto's server on a free loopback port.

Protocol with the parent (`launcher.py`): one line on stdout, the port, as soon as the server listens and is
seeded; end of file on stdin ends the process, so that it cannot outlive a parent that was killed.

The file is run by its path and imports nothing of bucketfront: it needs neither the parent's `sys.path` nor
the import of aiobotocore. moto and Flask are imported where they are used, for they are optional.
"""

from __future__ import annotations

import argparse
import mimetypes
import os
import signal
import threading
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed.wsgi import WSGIApplication
    from werkzeug.serving import BaseWSGIServer

# What players insist on. The system's own table decides the rest: it lacks some of these and calls .ts a
# translation file.
_MEDIA_TYPES = {
    ".aac": "audio/aac",
    ".css": "text/css; charset=utf-8",
    ".flac": "audio/flac",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4s": "video/iso.segment",
    ".m4v": "video/mp4",
    ".mjs": "text/javascript; charset=utf-8",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpd": "application/dash+xml",
    ".svg": "image/svg+xml",
    ".ts": "video/mp2t",
    ".txt": "text/plain; charset=utf-8",
    ".vtt": "text/vtt; charset=utf-8",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
}
_UNKNOWN_TYPE = "application/octet-stream"


def content_type(name: str) -> str:
    """The media type that fits a file name or key."""
    known = _MEDIA_TYPES.get(PurePosixPath(name).suffix.lower())
    return known or mimetypes.guess_type(name, strict=False)[0] or _UNKNOWN_TYPE


def seed(folder: Path) -> list[tuple[str, Path]]:
    """The files below `folder` and the keys they get, in key order. Hidden files and folders are left out.

    Raises NotADirectoryError: `rglob` would take an absent folder for an empty one.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder to seed from")
    found = ((path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file())
    return sorted(
        (name.as_posix(), path) for name, path in found if not any(part.startswith(".") for part in name.parts)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stdin ends. Failures show as a traceback on stderr and a status other than 0."""
    # Ctrl-C goes to the whole process group; the parent still needs its origin while it drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()
    options = _parse(arguments)
    app = _application()
    _fill(app, options.bucket, options.seed)
    server = _listen(app)
    _announce(server.port)
    server.serve_forever()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An in-memory S3 on a free loopback port.")
    parser.add_argument("--bucket", action="append", default=[], help="create this bucket (repeatable)")
    parser.add_argument("--seed", type=Path, help="upload the files below this folder to each bucket")
    return parser.parse_args(arguments)


def _exit_at_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # there is nothing to save, and request threads may be busy


def _application() -> WSGIApplication:
    from moto.moto_server.werkzeug_app import create_backend_app  # noqa: PLC0415, I001  # optional, and 0.5 s
    from flask import request  # noqa: PLC0415  # moto is what is missed first

    app = create_backend_app("s3")

    @app.before_request
    def read_body() -> None:
        """Before anybody takes it for a form: of one sent by `curl --data-binary`, moto would store nothing."""
        request.get_data(cache=True)

    return cast("WSGIApplication", app)


def _fill(app: WSGIApplication, buckets: Sequence[str], folder: Path | None) -> None:
    """Create and seed the buckets through the S3 API: moto's other interfaces are its own business."""
    from werkzeug.test import Client  # noqa: PLC0415  # optional

    client = Client(app)

    def put(path: str, body: bytes = b"", media_type: str | None = None) -> None:
        answer = client.put(quote(f"/{path}"), data=body, content_type=media_type)
        if answer.status_code != HTTPStatus.OK:
            raise SystemExit(f"PUT /{path} answered {answer.status}: {answer.text}")

    for bucket in buckets:
        put(bucket)
        for key, path in seed(folder) if folder else ():
            put(f"{bucket}/{key}", path.read_bytes(), content_type(key))


def _listen(app: WSGIApplication) -> BaseWSGIServer:
    from moto.moto_server.werkzeug_app import MotoRequestHandler  # noqa: PLC0415  # optional
    from werkzeug.serving import make_server  # noqa: PLC0415  # optional

    class Handler(MotoRequestHandler):
        """Quiet, and prompt: werkzeug sends head and body in two writes."""

        protocol_version = "HTTP/1.1"  # of the framing only: werkzeug closes after each answer
        disable_nagle_algorithm = True

        def handle_expect_100(self) -> bool:
            """Leave it to werkzeug, which sends a `100 Continue` of its own."""
            return True

        def send_response(self, code: int, message: str | None = None) -> None:
            """Without a log line, and without `Server`: moto sends one, and strict clients refuse two."""
            self.send_response_only(code, message)
            self.send_header("Date", self.date_time_string())

    return make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)


def _announce(port: int) -> None:
    """Tell the parent the port, and let whatever is printed later go to stderr: nobody reads stdout now."""
    os.write(1, b"%d\n" % port)
    os.dup2(2, 1)


if __name__ == "__main__":
    main()
