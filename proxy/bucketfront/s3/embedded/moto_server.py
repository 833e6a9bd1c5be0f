"""The child process of the embedded origin: the S3 part of moto's server on a free loopback port.

Protocol with the parent (`launcher.py`): the child prints its port on one line as soon as it listens. End of file on
stdin ends it, so that it cannot outlive a parent that was killed.

The file is run by its path and imports nothing of bucketfront, so that it does not depend on the parent's `sys.path`
and starts without aiobotocore. moto and Flask are imported where they are used, because they are optional.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from werkzeug.serving import BaseWSGIServer


def main() -> None:
    """Serve until stdin ends. Failures show as a traceback on stderr and a status other than 0."""
    # Ctrl-C goes to the whole process group, and the parent still needs its origin while it drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()
    server = _listen(_application())
    _announce(server.port)
    server.serve_forever()


def _exit_at_end_of_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # there is nothing to save, and request threads may be busy


def _application() -> WSGIApplication:
    from moto.moto_server.werkzeug_app import create_backend_app  # noqa: PLC0415, I001  # optional, and 0.5 s
    from flask import request  # noqa: PLC0415  # behind moto, so that an error names moto if both are missing

    app = create_backend_app("s3")

    @app.before_request
    def read_body() -> None:
        """Read the body before Flask parses it as a form: moto would store nothing of `curl --data-binary`."""
        request.get_data(cache=True)

    return cast("WSGIApplication", app)


def _listen(app: WSGIApplication) -> BaseWSGIServer:
    from moto.moto_server.werkzeug_app import MotoRequestHandler  # noqa: PLC0415  # optional
    from werkzeug.serving import make_server  # noqa: PLC0415  # optional

    class Handler(MotoRequestHandler):
        """Quiet and prompt. werkzeug sends head and body in two writes, so Nagle's algorithm would delay the second."""

        protocol_version = "HTTP/1.1"  # of the framing only: werkzeug closes after each response
        disable_nagle_algorithm = True

        def handle_expect_100(self) -> bool:
            """Leave it to werkzeug, which sends a `100 Continue` of its own."""
            return True

        def send_response(self, code: int, message: str | None = None) -> None:
            """Begin a response without a log line, and without `Server`: moto sends one, and two are an error."""
            self.send_response_only(code, message)
            self.send_header("Date", self.date_time_string())

    return make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)


def _announce(port: int) -> None:
    """Print the port for the parent, then send later output to stderr, because the parent no longer reads stdout."""
    os.write(1, b"%d\n" % port)
    os.dup2(2, 1)


if __name__ == "__main__":
    main()
