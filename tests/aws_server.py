"""An AWS in a process of its own: moto's S3, SQS and SNS on a free loopback port, until its stdin ends."""

import os
import sys
import threading
from typing import Any

from flask import Flask, request
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()

    def application(service: Any) -> Flask:
        app: Flask = create_backend_app(service)

        @app.before_request
        def read_body() -> None:
            request.get_data(cache=True)  # before Flask parses it as a form

        return app

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_expect_100(self) -> bool:
            return True

        def send_response(self, code: int, message: str | None = None) -> None:
            self.send_response_only(code, message)
            self.send_header("Date", self.date_time_string())

    server = make_server(
        "127.0.0.1", 0, DomainDispatcherApplication(application), threaded=True, request_handler=Handler
    )
    os.write(1, b"%d\n" % server.port)
    os.dup2(2, 1)
    server.serve_forever()


def _exit_at_end_of_stdin() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
