"""Programs, libraries and pages that upload: in one request, in a form, and resumable over a link that breaks."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import installs
import pytest
from browser import Browser, browser
from bucketfront_process import Running, bucketfront
from case import Case
from fakes import object_bytes
from page_server import PageServer
from programs import Program, installed, run
from site_under_test import BUCKET, MOUNTS, Origin, Site
from upload_link import UploadLink

HERE = Path(__file__).parent
SIZE = 24 << 20  # three parts of an upload to S3
MAX_SENT = 5 * SIZE // 2  # a reset drops the megabytes that the kernel holds, more than once on a busy machine
DATA = object_bytes(SIZE)
SMALL = object_bytes(100_000, 1)
RESETS = (SIZE // 5, SIZE // 2, SIZE)
TUS_JS = "tus-js-client@4.3.1"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """Run the server of the pages that upload to bucketfront from their own origin."""
    with PageServer(tmp_path_factory.mktemp("pages")) as running:
        yield running


@pytest.fixture(scope="module")
def shared_bucketfront(
    origin: Origin, elsewhere: PageServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Run a bucketfront with the upload route, for its own pages and those of `elsewhere`."""
    folder = tmp_path_factory.mktemp("bucketfront")
    shown = MOUNTS.replace("path: /,", "path: /, inline_types: [text/html],")
    more = f'{shown}\nuploads: {{}}\ncors: {{allow_origins: ["{elsewhere.url}"]}}'
    with bucketfront(origin.configuration(folder, more), folder) as running:
        yield running
        assert "Traceback" not in running.printed(), running.printed()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file ü.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module", params=["Chromium", "Firefox"])
def in_browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    with browser(request.param) as running:
        yield running


def read(site: Site, name: str) -> bytes:
    """Return what bucketfront serves, after the origin was found to have the same."""
    response = site.send("GET", name)
    assert response.status == 200
    assert site.stored(name) == response.body
    return response.body


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("-T, a file", ["-T", "file ü.bin"]),
        ("-T, standard input, chunked", ["-T", "-"]),
        ("-T, standard input, chunked, HTTP/1.0 length unknown", ["-T", ".", "--http1.1"]),
        ("-T, without Expect", ["-H", "Expect:", "-T", "file ü.bin"]),
        ("-T, HTTP/1.0", ["--http1.0", "-T", "file ü.bin"]),
        ("--data-binary", ["-X", "PUT", "--data-binary", "@file ü.bin"]),
    ],
)
def test_curl_puts(what: str, arguments: list[str], site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """Curl stores a file with one PUT, and a 2xx means that S3 has its bytes (I5, I8)."""
    curl = installed("curl")
    case.of(curl, what)
    run(curl.path, "-sSf", *arguments, site.url_of("stored"), folder=tmp_path, stdin=DATA)
    assert read(site, "stored") == DATA


def test_curl_waits_for_leave(site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """Curl gets a 100 before it sends a large body, and a refusal in its place: then it sends no body."""
    curl = installed("curl")
    case.of(curl, "-T with Expect: taken, and refused")
    taken = run(curl.path, "-svf", "-T", file, site.url_of("stored"), folder=tmp_path)
    assert "HTTP/1.1 100 Continue" in taken.output
    refused = run(curl.path, "-sv", "-w", "%{http_code} %{size_upload}", "-T", file, f"{site.url}/%zz", folder=tmp_path)
    assert refused.stdout.endswith(b"400 0")
    assert site.names() == ["stored"]


def test_curl_does_not_continue_an_upload(site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """The rest of a file does not replace the object (I8)."""
    curl = installed("curl")
    case.of(curl, "-C with -T")
    case.cannot(
        "`-C` with `-T` sends the rest of a file with Content-Range, which gets 400 (RFC 9110, 14.5). Use tus for "
        "uploads that break off"
    )
    site.send("PUT", "stored", {}, SMALL)
    failed = run(curl.path, "-sSf", "-C", "5", "-T", file, site.url_of("stored"), folder=tmp_path, fails=True)
    assert "400" in failed.output
    assert read(site, "stored") == SMALL


def test_curl_sends_forms(site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """Each file of a form becomes an object, with the fields before it (I8, I23)."""
    curl = installed("curl")
    case.of(curl, "-F, one file, several files, standard input")
    (tmp_path / "small").write_bytes(SMALL)
    key = f"key={site.folder}/${{filename}}"
    for fields in (["-F", f"f=@{file.name};type=text/x-test"], ["-F", "f=@small", "-F", "g=@small;filename=other"]):
        run(curl.path, "-sSf", "-F", key, *fields, f"{site.running.url}/", folder=tmp_path)
    run(curl.path, "-sSf", "-F", key, "-F", "f=@-;filename=in", f"{site.running.url}/", folder=tmp_path, stdin=SMALL)
    assert site.names() == sorted([file.name, "small", "other", "in"])
    assert read(site, file.name) == DATA
    assert site.send("HEAD", file.name).fields["Content-Type"] == "text/x-test"
    assert [read(site, name) for name in ("small", "other", "in")] == [SMALL] * 3


def test_wget_sends(site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """Wget stores a file with PUT, and with a POST whose response has the object's new name (I5)."""
    wget = installed("wget")
    case.of(wget, "--method=PUT --body-file, --post-file")
    case.cannot("`--post-file` calls the file a form, which gets 415. Name its type: `--header='Content-Type: …'`")
    run(wget.path, "-nv", "--method=PUT", f"--body-file={file.name}", site.url_of("stored"), folder=tmp_path)
    assert read(site, "stored") == DATA
    post = (wget.path, "-nv", f"--post-file={file.name}", "-O", "response", f"{site.url}/")
    assert "ERROR 415" in run(*post, folder=tmp_path, fails=True).output
    assert site.names() == ["stored"]
    run(*post, "--header=Content-Type: text/x-test", folder=tmp_path)
    made = json.loads((tmp_path / "response").read_text())["key"].removeprefix(f"{site.folder}/")
    assert read(site, made) == DATA


HTTPIE = "httpie==3.2.4"


@pytest.mark.parametrize("arguments", [["PUT"], ["--chunked", "PUT"]], ids=["PUT", "chunked"])
def test_httpie_puts(arguments: list[str], site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """HTTPie stores a file from its standard input (I5, I8)."""
    case.of(Program("HTTPie", sys.executable, HTTPIE.partition("==")[2]), f"{arguments[0]}, standard input")
    packages = installs.pip(HTTPIE, dependencies=True)
    command = (sys.executable, "-m", "httpie", "--check-status", *arguments, site.url_of("stored"))
    run(*command, folder=tmp_path, environment={"PYTHONPATH": str(packages)}, stdin=DATA)
    assert read(site, "stored") == DATA


REQUESTS = """
import requests
with open(path, "rb") as file:
    requests.put(f"{url}/whole", data=file).raise_for_status()
requests.put(f"{url}/chunked", data=pieces()).raise_for_status()
with open(path, "rb") as file:
    requests.post(root, data={"key": f"{folder}/form"}, files={"file": ("form", file)}).raise_for_status()
"""
HTTPX = """
import httpx
with httpx.Client(timeout=60) as client:
    with open(path, "rb") as file:
        client.put(f"{url}/whole", content=file).raise_for_status()
    client.put(f"{url}/chunked", content=pieces()).raise_for_status()
    with open(path, "rb") as file:
        client.post(root, data={"key": f"{folder}/form"}, files={"file": ("form", file)}).raise_for_status()
"""
AIOHTTP = """
import aiohttp, asyncio
async def apieces():
    for piece in pieces():
        yield piece
async def main():
    async with aiohttp.ClientSession(raise_for_status=True) as client:
        with open(path, "rb") as file:
            await client.put(f"{url}/whole", data=file)
        await client.put(f"{url}/chunked", data=apieces())
        with open(path, "rb") as file:
            form = aiohttp.FormData({"key": f"{folder}/form"})
            form.add_field("file", file, filename="form")
            await client.post(root, data=form)
asyncio.run(main())
"""
PIECES = """
import sys
root, folder, path = sys.argv[1:]
url = root + folder
def pieces():
    with open(path, "rb") as file:
        while piece := file.read(100_001):
            yield piece
"""


@pytest.mark.parametrize(
    ("package", "script"),
    [("requests==2.34.2", REQUESTS), ("httpx==0.28.1", HTTPX), ("aiohttp==3.14.5", AIOHTTP)],
    ids=["requests", "httpx", "aiohttp"],
)
def test_python_libraries_upload(package: str, script: str, site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """A library stores a file, a stream of unknown length, and a form (I5, I8)."""
    name, _, version = package.partition("==")
    case.of(Program(name, sys.executable, version), "PUT of a file, of a generator, and a form")
    packages = installs.pip(package, dependencies=True)
    command = (sys.executable, "-c", PIECES + script, f"{site.running.url}/", site.folder, file)
    run(*command, folder=tmp_path, environment={"PYTHONPATH": str(packages)})
    assert [read(site, each) == DATA for each in ("whole", "chunked", "form")] == [True] * 3


NODE_FETCH = """
import { createReadStream } from "node:fs";
const [url, path] = process.argv.slice(2);
const response = await fetch(url, { method: "PUT", body: createReadStream(path), duplex: "half" });
console.log(response.status);
"""


def test_node_fetch_streams(site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """The fetch of node stores a stream of unknown length (I5, I8)."""
    node = installed("node", "nodejs")
    case.of(node, "fetch, PUT of a stream")
    (tmp_path / "put.mjs").write_text(NODE_FETCH)
    result = run(node.path, "put.mjs", site.url_of("stored"), file, folder=tmp_path)
    assert result.output == "201\n"
    assert read(site, "stored") == DATA


@pytest.mark.parametrize(
    "options",
    [{}, {"chunkSize": 5_000_000}, {"chunkSize": 5_000_000, "uploadDataDuringCreation": True}],
    ids=["whole", "pieces", "with-creation"],
)
def test_tus_js_client_in_node(options: dict[str, object], site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """The official client finishes an upload over a link that is reset three times, and sends again only what was under
    way (I8).
    """
    node = installed("node", "nodejs")
    what = ", ".join(f"{name}: {json.dumps(value)}" for name, value in options.items()) or "default options"
    case.of(Program("tus-js-client in node", node.path, TUS_JS.partition("@")[2]), f"three resets, {what}")
    packages = installs.npm(TUS_JS)
    with UploadLink(site.running.url, resets=RESETS) as link:
        arguments = (packages, f"{link.url}/upload", file, f"{site.folder}/stored", json.dumps(options))
        run(node.path, HERE / "tus_upload.mjs", *arguments, folder=tmp_path)
        assert link.resets == []
        assert link.sent < MAX_SENT
    assert read(site, "stored") == DATA
    assert site.send("HEAD", "stored").fields["Content-Type"] == "text/x-test"


TUSPY = """
import sys
from tusclient import client
endpoint, path, key = sys.argv[1:]
uploader = client.TusClient(endpoint).uploader(
    path, chunk_size=4_000_000, metadata={"key": key}, retries=8, retry_delay=0.2
)
uploader.upload()
print(uploader.url)
"""


def test_tuspy(site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """The Python client finishes an upload over a link that is reset three times (I8)."""
    package = "tuspy==1.1.0"
    case.of(Program("tuspy", sys.executable, package.partition("==")[2]), "three resets")
    packages = installs.pip(package, dependencies=True)
    with UploadLink(site.running.url, resets=RESETS) as link:
        command = (sys.executable, "-c", TUSPY, f"{link.url}/upload", file, f"{site.folder}/stored")
        run(*command, folder=tmp_path, environment={"PYTHONPATH": str(packages)})
        assert link.resets == []
    assert read(site, "stored") == DATA


def test_tus_js_client_does_not_split_an_upload(site: Site, case: Case, file: Path, tmp_path: Path) -> None:
    """Uploads of parts that the client wants to join are refused at once, and leave no objects."""
    node = installed("node", "nodejs")
    case.of(Program("tus-js-client in node", node.path, TUS_JS.partition("@")[2]), "parallelUploads: 2")
    case.cannot("`parallelUploads` needs the extension `concatenation`, which bucketfront does not have: it gets 400")
    arguments = (installs.npm(TUS_JS), f"{site.running.url}/upload", file, f"{site.folder}/stored")
    result = run(node.path, HERE / "tus_upload.mjs", *arguments, '{"parallelUploads": 2}', folder=tmp_path, fails=True)
    assert "response code: 400" in result.output
    assert site.names() == []


FETCH = """
async ({ url, root, folder }) => {
  const [file] = document.querySelector("input").files;
  const form = new FormData();
  form.append("key", `${folder}/form`);
  form.append("file", file);
  const put = await fetch(`${url}/put`, { method: "PUT", body: file, headers: { "Content-Type": "text/x-test" } });
  const post = await fetch(root, { method: "POST", body: form });
  return [put.status, post.status, (await post.json()).key];
}
"""


def test_pages_upload_with_fetch(
    in_browser: Browser, elsewhere: PageServer, site: Site, case: Case, file: Path
) -> None:
    """A page of another origin stores a file by `fetch`: with PUT, which needs a preflight, and in a form (I5, I33)."""
    case.of(in_browser.program, "fetch: PUT of a file, and a form, from another origin")
    url = elsewhere.store("page.html", b"<input type=file>")
    argument = {"url": site.url, "root": f"{site.running.url}/", "folder": site.folder}
    with in_browser.page(url) as page:
        page.choose("input", file)
        assert page.evaluate(FETCH, argument) == [201, 201, f"{site.folder}/form"]
    assert [read(site, name) == DATA for name in ("put", "form")] == [True, True]
    assert site.send("HEAD", "put").fields["Content-Type"] == "text/x-test"


TUS_IN_A_PAGE = """
({ script, endpoint, key }) => new Promise((done) => {
  const library = document.createElement("script");
  library.src = script;
  library.onload = () => new tus.Upload(document.querySelector("input").files[0], {
    endpoint,
    retryDelays: [0, 100, 200, 400, 800, 1600],
    metadata: { key },
    onError: (error) => done(String(error)),
    onSuccess: () => done("done"),
  }).start();
  document.body.append(library);
})
"""


def test_tus_js_client_in_a_browser(
    in_browser: Browser, elsewhere: PageServer, site: Site, case: Case, file: Path
) -> None:
    """The official client on a page of another origin finishes an upload over a link that is reset three times (I8)."""
    name = f"tus-js-client in {in_browser.program.name} {in_browser.program.version.partition('.')[0]}"
    case.of(Program(name, in_browser.program.path, TUS_JS.partition("@")[2]), "three resets, from another origin")
    script = installs.npm(TUS_JS) / "node_modules" / "tus-js-client" / "dist" / "tus.min.js"
    source = site.store("tus.js", script.read_bytes(), ContentType="text/javascript")
    url = elsewhere.store("page.html", b"<body><input type=file>")
    with UploadLink(site.running.url, resets=RESETS) as link, in_browser.page(url) as page:
        page.choose("input", file)
        argument = {"script": source, "endpoint": f"{link.url}/upload", "key": f"{site.folder}/stored"}
        assert page.evaluate(TUS_IN_A_PAGE, argument) == "done"
        assert link.resets == []
        assert link.sent < MAX_SENT
    assert read(site, "stored") == DATA


UPLOADED = """
() => new Promise((done) => {
  const look = () => {
    const item = document.querySelector("li.done, li.failed");
    if (item) done(item.textContent);
    else setTimeout(look, 50);
  };
  look();
})
"""
PRESS = """
() => {
  document.querySelector("li button").click();
  return document.querySelector("li .state").textContent;
}
"""

# Browsers report what they have sent on a timer of their own.
SHOWS_PROGRESS = """
() => new Promise((shown) => {
  const look = () => (document.querySelector("progress")?.value > 0 ? shown(true) : setTimeout(look, 20));
  look();
})
"""


@pytest.fixture
def page_url(site: Site) -> str:
    """Return the path of the example page, which uploads below `uploads/`."""
    page = HERE.parents[1] / "examples" / "media" / "upload.html"
    site.origin.objects.put_object(Bucket=BUCKET, Key=page.name, Body=page.read_bytes(), ContentType="text/html")
    return f"/{page.name}"


def uploads(site: Site) -> Site:
    """Return the view of what the example page has stored."""
    return Site(site.origin, site.running, "uploads")


def test_the_upload_page_survives_resets(
    in_browser: Browser, site: Site, case: Case, page_url: str, tmp_path: Path
) -> None:
    """The example page finishes an upload over a link that is reset three times (I8)."""
    case.of(in_browser.program, "upload.html: three resets")
    file = tmp_path / f"{site.folder} ü.bin"
    file.write_bytes(DATA)
    with UploadLink(site.running.url, resets=RESETS) as link, in_browser.page(link.url + page_url) as page:
        page.choose("input", file)
        assert f"uploads/{file.name}" in page.evaluate(UPLOADED)
        assert link.resets == []
        assert link.sent < MAX_SENT
    assert read(uploads(site), file.name) == DATA


def test_the_upload_page_pauses_and_goes_on(
    in_browser: Browser, site: Site, case: Case, page_url: str, tmp_path: Path
) -> None:
    """A paused upload goes on from where it was (I8)."""
    case.of(in_browser.program, "upload.html: pause, resume")
    file = tmp_path / f"{site.folder}.bin"
    file.write_bytes(DATA)
    with UploadLink(site.running.url, hold=SIZE // 2) as link, in_browser.page(link.url + page_url) as page:
        page.choose("input", file)
        link.wait_until_held()
        assert page.evaluate(SHOWS_PROGRESS)
        paused = page.evaluate(PRESS)
        assert paused.startswith("Paused at "), paused
        assert float(paused.split()[2]) > 0, paused
        link.release()
        page.evaluate(PRESS)
        assert f"uploads/{file.name}" in page.evaluate(UPLOADED)
        assert link.sent < MAX_SENT
    assert read(uploads(site), file.name) == DATA


def test_the_upload_page_goes_on_after_a_reload(
    in_browser: Browser, site: Site, case: Case, page_url: str, tmp_path: Path
) -> None:
    """After a reload, the same file goes on where it was (I8)."""
    case.of(in_browser.program, "upload.html: reload")
    file = tmp_path / f"{site.folder}.bin"
    file.write_bytes(DATA)
    with UploadLink(site.running.url, hold=SIZE // 2) as link, in_browser.page(link.url + page_url) as page:
        page.choose("input", file)
        link.wait_until_held()
        page.reload()
        link.release()
        page.choose("input", file)
        assert f"uploads/{file.name}" in page.evaluate(UPLOADED)
        assert link.sent < MAX_SENT
    assert read(uploads(site), file.name) == DATA
