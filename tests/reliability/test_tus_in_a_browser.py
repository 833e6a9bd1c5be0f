"""Resumable uploads by their real users: the official JavaScript client and the example page, in Chromium.

The proxy is killed during the uploads. Needs node, npm and its registry; packages go into a temporary folder.
"""

import asyncio
import hashlib
import json
import os
import random
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from evidence import Evidence
from held_port import held_port
from proxy_process import FreshStarts

from bucketfront.config.origin_settings import OriginSettings

HERE, ROOT = Path(__file__).parent, Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium") or ""  # Debian's, otherwise npm's
PACKAGES = ("tus-js-client@4.3.1", "playwright-core@1.65.1", *(() if CHROMIUM else ("@sparticuz/chromium@153.0.0",)))
SIZE = 48 << 20
KILL_AT = (0.2, 0.55, 0.8)  # share of the upload, as the client sees it
CALL_TIMEOUT_S = 300.0  # seconds for one upload and its three starts, on a slow machine
CONFIG = """\
server: {port: %(port)d}
admin: {port: 0}
origin:
  endpoint_url: %(origin)s
  addressing_style: path
  create_bucket: true
  credentials: {access_key_id: any, secret_access_key: any}
mounts:
  - {path: /, bucket: uploads-test, methods: [GET, HEAD, PUT], inline_types: [text/html]}
uploads: {}
cors: {allow_origins: ["%(page)s"]}
cache: {dir: %(folder)s/cache, min_free: 0}
access_log: {path: %(folder)s/access.log}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which browser_upload.mjs can run."""
    folder = tmp_path_factory.mktemp("browser")
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("not run: node and npm are not installed")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("not run: npm did not install what is needed within 180 s")
    if done.returncode:
        pytest.skip(f"not run: npm could not install what is needed: {done.stderr.strip().splitlines()[-1:]}")
    shutil.copy(HERE / "browser_upload.mjs", folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """Return the address of another web server, whose pages have another origin."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    handler = partial(_Quiet, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def port() -> Iterator[int]:
    """Hold the port at which the client goes on after each kill."""
    with held_port() as held:
        yield held


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class Upload:
    """One upload from the browser. The proxy is killed whenever the upload has reached a share in KILL_AT."""

    def __init__(self, browser: Path, config: Path, file: Path) -> None:
        self.browser = browser
        self.config = config
        self.file = file
        self.starter = FreshStarts()
        self.kills = 0
        self.reports: list[dict[str, Any]] = []

    async def start(self) -> str:
        await self.starter.begin(self.config)
        running = await self.starter.ready()
        return running.address

    async def run(self, client: str, page: str, address: str, key: str) -> dict[str, Any]:
        """Run the upload and return the client's report that it is done, or else its last one.

        Reports of progress are sent on a timer, so that one may follow.
        """
        command = ["node", "browser_upload.mjs", CHROMIUM, client, page, f"{address}/upload", str(self.file), key]
        process = await asyncio.create_subprocess_exec(
            *command,
            str(self.file.parent),
            cwd=self.browser,
            env={**os.environ, "TMPDIR": str(self.browser)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                while line := await process.stdout.readline():
                    self.reports.append(json.loads(line))
                    share = self.reports[-1].get("sent", 0) / self.reports[-1].get("total", 1)
                    if self.kills < len(KILL_AT) and share >= KILL_AT[self.kills]:
                        await self.kill()
                _, stderr = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, stderr.decode()
        assert not [report for report in self.reports if "error" in report], self.reports[-5:]
        return next((report for report in self.reports if "done" in report), self.reports[-1])

    async def kill(self) -> None:
        await self.starter.kill()
        self.kills += 1
        await self.start()


def send_request(url: str, data: bytes | None = None, method: str = "GET") -> tuple[bytes, str | None]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "text/html"})
    with opener.open(request, timeout=CALL_TIMEOUT_S) as response:
        return response.read(), response.headers["Content-Type"]


@pytest.mark.parametrize("client", ["tus-js-client", "page"])
async def test_upload_from_a_browser(
    client: str,
    port: int,
    browser: Path,
    moto_s3: OriginSettings,
    elsewhere: str,
    tmp_path: Path,
    evidence: Evidence,
) -> None:
    """The official client, on a page of another origin, and the example page upload a whole file to S3. The proxy is
    killed three times meanwhile (I1, I8, I14).
    """
    config, file = tmp_path / "proxy.yaml", tmp_path / "film ü.bin"
    origin = elsewhere.removesuffix("/")
    config.write_text(CONFIG % {"origin": moto_s3.endpoint_url, "port": port, "folder": tmp_path, "page": origin})
    content = random.Random(4).randbytes(SIZE)
    file.write_bytes(content)
    upload = Upload(browser, config, file)
    address = await upload.start()
    try:
        page, key = elsewhere, "films/one.bin"
        if client == "page":
            example = (ROOT / "examples" / "media" / "upload.html").read_bytes()
            await asyncio.to_thread(send_request, f"{address}/upload.html", example, "PUT")
            page, key = f"{address}/upload.html", "uploads/film%20%C3%BC.bin"
        assert "done" in await upload.run(client, page, address, key)
        assert upload.kills == len(KILL_AT)
        got, kind = await asyncio.to_thread(send_request, f"{address}/{key}")
        assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()
        stored, _ = await asyncio.to_thread(send_request, f"{moto_s3.endpoint_url}/uploads-test/{key}")
        assert stored == content
        assert client == "page" or kind == "text/x-test"
        # The start does not wait until what a kill left at S3 is aborted, and the upload may have ended before.
        unfinished = f"{moto_s3.endpoint_url}/uploads-test?uploads"
        async with asyncio.timeout(CALL_TIMEOUT_S):
            while b"<UploadId>" in (await asyncio.to_thread(send_request, unfinished))[0]:  # noqa: ASYNC110 - S3 tells of none
                await asyncio.sleep(0.1)
    finally:
        await upload.starter.kill()
    evidence.add("uploads from a browser")
    evidence.add("kill -9 in the middle of an upload", upload.kills)
