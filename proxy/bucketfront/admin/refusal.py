"""Requests that the admin port refuses."""

import json
from collections.abc import Mapping

from aiohttp import web


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a response that says in JSON why there is no other."""
    return web.Response(
        status=status,
        body=json.dumps({"error": message}).encode() + b"\n",
        headers={**(headers or {}), "Content-Type": "application/json"},
    )


class Refused(Exception):
    """A request that gets an error in place of its own response."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = error_response(status, message, headers)
