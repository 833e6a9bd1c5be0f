"""A page of another site in a real browser: it may read what is public, and writes and purges nothing (I33)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import Browser, browser
from case import Case
from edge_site import until
from page_server import PageServer
from site_under_test import Site

DATA = b"what was there before"
REBOUND = "rebound.example"  # browser_bridge.mjs lets it lead to this machine

ATTEMPTS = """
async ({ root, folder, admin }) => {
  const object = `${root}/${folder}/kept`;
  const xml = `<Delete><Object><Key>${folder}/kept</Key></Object></Delete>`;
  const form = new FormData();
  form.append("key", `${folder}/kept`);
  form.append("file", new Blob(["written"]));
  const purge = JSON.stringify({ paths: [`/${folder}/kept`] });
  const plain = { "Content-Type": "text/plain" };
  const json = { "Content-Type": "application/json" };
  const calls = [];
  for (const mode of ["cors", "no-cors", "same-origin"]) {
    for (const credentials of ["omit", "include"]) {
      calls.push(
        [object, { method: "PUT", body: "written" }],
        [object, { method: "DELETE" }],
        [object, { method: "PATCH", body: "written" }],
        [object, { method: "POST", body: "written", headers: plain }],
        [object, { method: "POST", body: "written", headers: { "X-HTTP-Method-Override": "PUT" } }],
        [`${root}/${folder}/`, { method: "POST", body: "written", headers: plain }],
        [`${root}/`, { method: "POST", body: form }],
        [`${root}/upload`, { method: "POST", body: form }],
        [`${root}/upload/${folder}/kept`, { method: "POST", body: "written", headers: plain }],
        [`${root}/upload`, { method: "POST", headers: { "Tus-Resumable": "1.0.0", "Upload-Length": "3" } }],
        [`${root}/?delete`, { method: "POST", body: xml, headers: plain }],
        [`${root}/?delete`, { method: "POST", body: xml, headers: { "Content-Type": "application/xml" } }],
        [`${admin}/api/v1/purge`, { method: "POST", body: purge, headers: plain }],
        [`${admin}/api/v1/purge`, { method: "POST", body: purge, headers: json }],
        [`${admin}/api/v1/purge`, { method: "POST", body: new Blob([purge], { type: "" }) }],
        [`${admin}/api/v1/stats`, {}],
      );
      for (const call of calls) Object.assign(call[1], call[1].mode ? {} : { mode, credentials });
    }
  }
  const statuses = await Promise.all(calls.map(([url, options]) =>
    fetch(url, options).then((response) => response.status, () => 0)));
  navigator.sendBeacon(`${root}/?delete`, xml);
  navigator.sendBeacon(`${admin}/api/v1/purge`, purge);
  await Promise.all([`${object}?delete`, `${admin}/api/v1/purge?paths=/${folder}/kept`].map((url) =>
    new Promise((done) => {
      const image = new Image();
      image.onload = image.onerror = done;
      image.src = url;
    })));
  return statuses;
}
"""
FORM = """
({ url, enctype, fields }) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.name = `frame${Math.random()}`;
  document.body.append(frame);
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action: url, enctype, target: frame.name });
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement("input");
    Object.assign(input, { name, value });
    form.append(input);
  }
  document.body.append(form);
  frame.onload = () => done(true);
  form.submit();
})
"""
READ = "async (url) => { const response = await fetch(url); return [response.status, await response.text()]; }"
SAME_ORIGIN = """
async ({ path, method, body, type }) => {
  const response = await fetch(path, { method, body, headers: type ? { "Content-Type": type } : {} });
  return response.status;
}
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser("Chromium") as started:
        yield started


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[PageServer]:
    folder = tmp_path / "pages"
    folder.mkdir()
    with PageServer(folder) as server:
        yield server


def writes_logged(site: Site) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (site.running.log.parent / "access.log").read_text().splitlines()]
    return [line for line in lines if line["method"] not in ("GET", "HEAD", "OPTIONS")]


def assert_untouched(site: Site) -> None:
    """Assert that the object is as before, at the origin and in the cache, and that it is the only one."""
    assert (site.names(), site.stored("kept")) == (["kept"], DATA)
    response = site.send("GET", "kept")
    assert (response.status, response.body) == (200, DATA)
    assert "; hit" in str(response.fields["Cache-Status"])


def keep(site: Site) -> None:
    site.store("kept", DATA, CacheControl="max-age=3600")
    until(lambda: "; hit" in str(site.send("GET", "kept").fields["Cache-Status"]), "the object is cached")


def test_writes_and_purges(
    chromium: Browser, elsewhere: PageServer, site: Site, case: Case, trial: Callable[..., None]
) -> None:
    """A page of another site writes and purges nothing, with or without a preflight, and reads what CORS allows."""
    case.of(chromium.program, "a page of another site: fetch, forms, beacons and images that would write or purge")
    keep(site)
    before = len(writes_logged(site))
    root, admin = site.running.url, site.running.admin_url
    forms = [
        (f"{root}/", "multipart/form-data", {"key": f"{site.folder}/kept", "file": "written"}),
        (f"{root}/{site.folder}/", "text/plain", {"a": "written"}),
        (f"{root}/?delete", "text/plain", {"<Delete><Object><Key>": f"{site.folder}/kept</Key></Object></Delete>"}),
        (f"{admin}/api/v1/purge", "text/plain", {'{"paths": ["/x"], "soft": "': '"}'}),
        (f"{admin}/api/v1/purge", "application/x-www-form-urlencoded", {"prefix": "/"}),
    ]
    with chromium.page(elsewhere.store("page.html", b"<body>")) as page:
        statuses = page.evaluate(ATTEMPTS, {"root": root, "folder": site.folder, "admin": admin})
        for url, enctype, fields in forms:
            assert page.evaluate(FORM, {"url": url, "enctype": enctype, "fields": fields})
        assert page.evaluate(READ, site.url_of("kept")) == [200, DATA.decode()]
    assert {status for status in statuses if status} <= {403, 405}  # a page may not read most of them
    assert_untouched(site)
    until(lambda: len(writes_logged(site)) > before, "some writes have reached bucketfront")
    logged = writes_logged(site)[before:]
    assert {line["status"] for line in logged} == {403, 405}
    tried = len(statuses) + len(forms) + 4
    seen = f"{len(logged)} reached the port for clients, all refused; object unchanged and cached; CORS read served"
    trial("a page of another site", f"Chromium {chromium.program.version}, both ports", tried, seen)


def test_rebound_name(chromium: Browser, site: Site, case: Case, trial: Callable[..., None]) -> None:
    """A name that a stranger lets lead here reaches neither a write nor the admin port, although it is one origin."""
    case.of(chromium.program, "a foreign host name that leads to bucketfront (DNS rebinding)")
    keep(site)
    path, purge = f"/{site.folder}/kept", json.dumps({"paths": [f"/{site.folder}/kept"]})
    clients, admin = (urlsplit(url).port for url in (site.running.url, site.running.admin_url))
    calls = [
        {"path": path, "method": "PUT", "body": "written"},
        {"path": path, "method": "DELETE"},
        {"path": f"/{site.folder}/", "method": "POST", "body": "written", "type": "text/plain"},
    ]
    with chromium.page(f"http://{REBOUND}:{clients}{path}") as page:
        assert [page.evaluate(SAME_ORIGIN, call) for call in calls] == [421] * len(calls)
    operations = [
        {"path": "/api/v1/purge", "method": "POST", "body": purge, "type": "application/json"},
        {"path": "/api/v1/stats", "method": "GET"},
        {"path": "/metrics", "method": "GET"},
        {"path": "/openapi.json", "method": "GET"},
    ]
    with chromium.page(f"http://{REBOUND}:{admin}/healthz") as page:
        assert [page.evaluate(SAME_ORIGIN, call) for call in operations] == [421] * len(operations)
    assert_untouched(site)
    seen = "all 421; the object unchanged and cached"
    trial("DNS rebinding", f"Chromium {chromium.program.version}, both ports", len(calls) + len(operations), seen)
