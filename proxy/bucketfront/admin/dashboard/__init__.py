"""The page for operators: `GET /` and its files. They have no data. The page reads the other paths of the port."""

from collections.abc import Mapping
from importlib.resources import files

from aiohttp import hdrs, web

from bucketfront.admin.operation import Body, Media, Operation

_FILES = {file.name: file.read_bytes() for file in (files(__package__) / "files").iterdir()}
_PATHS = {"/": "index.html", **{f"/dashboard/{name}": name for name in sorted(_FILES) if name != "index.html"}}

# Nothing comes from outside, and no text of a key can act as a script or a style.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


_MEDIA = {"html": Media.HTML, "css": Media.CSS, "js": Media.SCRIPT}


def _media(name: str) -> Media:
    return _MEDIA[name.rpartition(".")[2]]


OPERATIONS: Mapping[str, Operation] = {
    path: Operation(
        hdrs.METH_GET,
        "The dashboard" if path == "/" else "A file of the dashboard",
        {200: (Body(_media(name)),)},
        is_page=True,
    )
    for path, name in _PATHS.items()
}


class Dashboard:
    """Responds with the files of the page."""

    def __init__(self) -> None:
        self.handlers = dict.fromkeys(_PATHS, self._file)

    async def _file(self, request: web.BaseRequest) -> web.Response:
        name = _PATHS[request.rel_url.raw_path]
        media = f"{_media(name).value}; charset=utf-8"
        return web.Response(body=_FILES[name], headers={**_HEADERS, "Content-Type": media})
