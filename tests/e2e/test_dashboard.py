"""The dashboard in a real browser: it shows what happens, purges and warms, and shows a key as text (I27, I28)."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import installs
import pytest
from browser import Browser, Page, browser
from bucketfront_process import ROOT, Running, bucketfront
from case import Case
from edge_site import until
from fakes import object_bytes
from installs import NotInstallable
from programs import Program
from site_under_test import TIMEOUT_S, Origin, Site

TOKEN = "0123456789abcdef0123456789abcdef"
AXE = "axe-core@4.11.0"
SIZE = 3 << 20
HOSTILE = "<img src=x onerror=\"document.title='taken over'\">.bin"
VIEWS = {"desk": (1280, 900, False), "dark": (1280, 900, True), "phone": (360, 740, False)}

TEXT = "(id) => document.getElementById(id).textContent"
SET = """
({id, value}) => {
  const input = document.getElementById(id);
  if (input.type === "checkbox") input.checked = value; else input.value = value;
  input.dispatchEvent(new Event("input", {bubbles: true}));
  input.dispatchEvent(new Event("change", {bubbles: true}));
}
"""
SUBMIT = """
(id) => {
  const found = document.getElementById(id);
  if (found.form) found.form.requestSubmit(found); else found.requestSubmit();
}
"""
THEME = "(isDark) => { document.documentElement.dataset.theme = isDark ? 'dark' : 'light'; scrollTo(0, 0); }"
BARRIERS = """
async () => {
  AXE;
  const {violations} = await axe.run();
  return violations.map(({id, nodes}) => [id, nodes.map((node) => node.html)]);
}
"""
CURVES = (
    "() => [...document.querySelectorAll('#charts path.curve')].map((curve) => curve.getAttribute('d')).filter(Boolean)"
)
CURVE_COUNT = 8  # four charts with two curves each
THEME_OF = "() => document.documentElement.dataset.theme"
CARD = """
(title) => [...document.querySelectorAll("#cards dt")].find((found) => found.textContent === title)
  .nextElementSibling.firstElementChild.textContent
"""
ROWS = """
(id) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) => [...row.cells].map((cell) => cell.textContent))
"""
PRICES = "pricing: {currency: USD, per_1000_gets: 0.0004, per_1000_puts: 0.005, per_gb_out: 0.09}\n"
SHOW = "(id) => document.getElementById(id).scrollIntoView()"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    try:
        with browser("Chromium") as found:
            yield found
    except NotInstallable as why:
        pytest.skip(f"not run: {why}")


@pytest.fixture(scope="module")
def site(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("bucketfront")
    config = origin.configuration(folder).replace("admin: {port: 0}", f"admin: {{port: 0, token: {TOKEN}}}")
    with bucketfront(config, folder) as proxy:
        yield Site(origin, proxy, "dashboard")
        assert "Traceback" not in proxy.printed(), proxy.printed()


@contextlib.contextmanager
def opened(chromium: Browser, running: Running) -> Iterator[Page]:
    """Open the dashboard, and log in."""
    with chromium.page(f"{running.admin_url}/") as page:
        until(lambda: not page.evaluate("() => document.getElementById('login').hidden"), "the page asks for the token")
        page.evaluate(SET, {"id": "token", "value": TOKEN})
        page.evaluate(SUBMIT, "login")
        shows(page, "state", "serving")
        yield page


def shows(page: Page, identity: str, text: str) -> None:
    """Wait until the element has the text."""
    page.evaluate(SHOW, identity)
    until(lambda: text in page.evaluate(TEXT, identity), f"#{identity} shows {text!r}")


def read(site: Site, name: str) -> bytes:
    with urllib.request.urlopen(site.url_of(name), timeout=TIMEOUT_S) as response:
        data: bytes = response.read()
    return data


def test_the_token(chromium: Browser, site: Site, case: Case) -> None:
    """Without the token the page has no figures. A wrong one is refused, and the right one is kept over a reload."""
    case.of(chromium.program, "logs in to the dashboard")
    with chromium.page(f"{site.running.admin_url}/") as page:
        until(lambda: not page.evaluate("() => document.getElementById('login').hidden"), "the page asks for the token")
        assert page.evaluate("() => document.getElementById('main').hidden")
        page.evaluate(SET, {"id": "token", "value": "wrong" * 4})
        page.evaluate(SUBMIT, "login")
        until(lambda: "not the one" in page.evaluate(TEXT, "login-why"), "the wrong token is refused")
        page.evaluate(SET, {"id": "token", "value": TOKEN})
        page.evaluate(SUBMIT, "login")
        shows(page, "state", "serving")
        page.reload()
        shows(page, "state", "serving")
        assert {message.text.split()[0] for message in page.errors if message.kind == "status"} == {"401"}


def test_what_happens(chromium: Browser, site: Site, case: Case) -> None:
    """Requests appear as they end, with their decision, and so do their objects, their share, and an explanation."""
    case.of(chromium.program, "shows requests, objects, hit ratio and an explanation on the dashboard")
    data = object_bytes(SIZE)
    for name in ("film", HOSTILE):
        site.store(name, data)
    path, hostile = f"/{site.folder}/film", f"/{site.folder}/{quote(HOSTILE)}"
    with opened(chromium, site.running) as page:
        page.evaluate(SET, {"id": "tail-path", "value": f"{site.folder}/**"})
        page.evaluate(SUBMIT, "tail-form")
        shows(page, "tail-state", "watching")
        for _ in range(3):
            assert read(site, "film") == data
            assert read(site, HOSTILE) == data
        shows(page, "tail", "fwd=miss")
        shows(page, "tail", "hit")
        shows(page, "hot-requests", path)
        until(lambda: "3.00 MiB" in page.evaluate(TEXT, "tail"), "the size is shown")
        page.evaluate(SET, {"id": "explain-path", "value": path})
        page.evaluate(SUBMIT, "explain-form")
        shows(page, "explanation", "hit")
        shows(page, "explanation", "100 %")
        page.evaluate(SET, {"id": "entries-prefix", "value": f"/{site.folder}/"})
        page.evaluate(SUBMIT, "entries-form")
        shows(page, "entry-list", path)
        shows(page, "entry-list", hostile)
        shows(page, "cards", "Hit ratio")
        shows(page, "sizing", "What another cache.max_size would give")
        page.evaluate(SHOW, "charts")
        until(lambda: len(page.evaluate(CURVES)) == CURVE_COUNT, "all curves are drawn")
        shows(page, "config-list", "cache.dir")
        assert TOKEN not in page.evaluate("() => document.body.textContent")
        assert page.evaluate("() => document.title") == "bucketfront"
        assert only_401(page), page.errors


def only_401(page: Page) -> bool:
    """Return whether the page's only errors are of the request before the log-in."""
    return all("401" in message.text for message in page.errors)


def test_purge_and_warm(chromium: Browser, site: Site, case: Case) -> None:
    """A preview counts and changes nothing, a purge removes, and a warm job brings the object back."""
    case.of(chromium.program, "purges and warms by the dashboard")
    data = object_bytes(SIZE)
    site.store("purged", data)
    assert read(site, "purged") == data
    path = f"/{site.folder}/purged"
    with opened(chromium, site.running) as page:
        page.evaluate(SET, {"id": "purge-text", "value": path})
        page.evaluate(SUBMIT, "purge-preview")
        shows(page, "purged", "1 objects would go")
        page.evaluate(SUBMIT, "purge-do")
        shows(page, "purged", "1 objects purged")
        page.evaluate(SET, {"id": "explain-path", "value": path})
        page.evaluate(SUBMIT, "explain-form")
        shows(page, "explanation", "purged")
        page.evaluate(SET, {"id": "warm-text", "value": path})
        page.evaluate(SUBMIT, "warm-form")
        shows(page, "jobs", "1 of 1 objects")
        page.evaluate(SUBMIT, "explain-form")
        shows(page, "explanation", "100 %")
        assert only_401(page), page.errors


def test_fetches(chromium: Browser, site: Site, case: Case) -> None:
    """An object that is being fetched is there with a map of its blocks, until all of it has come."""
    case.of(chromium.program, "shows an object while it is fetched on the dashboard")
    site.store("fetched", object_bytes(SIZE))
    with opened(chromium, site.running) as page, ThreadPoolExecutor() as threads:
        with site.origin.log.held(bodies_only=True):
            reading = threads.submit(read, site, "fetched")
            shows(page, "fill-list", f"/{site.folder}/fetched")
            assert page.evaluate("() => document.querySelector('#fill-list svg.map').getAttribute('aria-label')")
        assert reading.result() == object_bytes(SIZE)
        shows(page, "fill-list", "None.")
        assert only_401(page), page.errors


def test_settings_and_theme(chromium: Browser, site: Site, case: Case) -> None:
    """A search leaves the settings that have the text, and a button changes between light and dark for good."""
    case.of(chromium.program, "searches the settings on the dashboard, and changes its theme")
    with opened(chromium, site.running) as page:
        shows(page, "config-list", "server.port")
        page.evaluate(SET, {"id": "config-find", "value": "min_free"})
        until(lambda: "server.port" not in page.evaluate(TEXT, "config-list"), "the other settings are gone")
        shows(page, "config-list", "cache.min_free")
        before = page.evaluate(THEME_OF)
        page.evaluate("() => document.getElementById('theme').click()")
        page.reload()
        shows(page, "state", "serving")
        assert {before, page.evaluate(THEME_OF)} == {"light", "dark"}


def test_the_readme(chromium: Browser, tmp_path: Path, case: Case) -> None:
    """The commands of the README lead from the start of the proxy to a purge that the dashboard shows."""
    case.of(chromium.program, "follows the README to a purge that the dashboard shows")
    quickstart = (ROOT / "README.md").read_text().partition("## Quickstart")[2].partition("[The tutorial]")[0]
    first, *requests, purge = re.findall(r"^(?:make|curl|\.venv/bin/bucketfront) .*$", quickstart, re.MULTILINE)
    assert first.startswith("make run ")
    config = (ROOT / "proxy.yaml").read_text().replace("./cache", str(tmp_path / "cache"))
    for port in ("8080", "8081"):
        config = config.replace(f"port: {port}", "port: 0")
    with bucketfront(config, tmp_path) as proxy, chromium.page(f"{proxy.admin_url}/") as page:

        def enter(command: str) -> str:
            command = command.replace("http://127.0.0.1:8080", proxy.url)
            command = command.replace(".venv/bin/bucketfront", f"{shlex.quote(sys.executable)} -m bucketfront.cli")
            variables = {"BUCKETFRONT_ADMIN__PORT": proxy.admin_url.rpartition(":")[2]}
            return subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=True,
            ).stdout

        shows(page, "state", "serving")
        page.evaluate(SUBMIT, "tail-form")
        shows(page, "tail-state", "watching")
        for command in requests:
            enter(command)
        shows(page, "tail", "/sample.mp4")
        shows(page, "tail", "PUT")
        until(lambda: page.evaluate(CARD, "Objects") == "2", "the video and the text are there")
        assert enter(purge) == "1 purged\n"
        until(lambda: page.evaluate(CARD, "Objects") == "1", "the purge is seen")
        assert page.errors == []


def test_observe(chromium: Browser, origin: Origin, tmp_path: Path, case: Case) -> None:
    """While the cache only observes, the page says so, and has what each size of the cache would give."""
    case.of(chromium.program, "shows on the dashboard that the cache observes, and the forecast")
    config = f"{origin.configuration(tmp_path).replace('min_free: 0', 'min_free: 0, mode: observe')}{PRICES}"
    with bucketfront(config, tmp_path) as proxy, chromium.page(f"{proxy.admin_url}/") as page:
        site = Site(origin, proxy, "observed")
        site.store("film", object_bytes(SIZE))
        shows(page, "state", "cache.mode is observe: S3 serves each read")
        for _ in range(4):
            assert read(site, "film") == object_bytes(SIZE)
        shows(page, "sizing", "What the cache would give with cache.mode: serve")
        until(lambda: [row[1] for row in page.evaluate(ROWS, "sizing")] == ["75 %"] * 4, "three of four are hits")
        rows = page.evaluate(ROWS, "sizing")
        assert all(row[0].startswith(factor) for row, factor in zip(rows, ("0.5", "1", "2", "4"), strict=True)), rows
        assert {row[3] for row in rows} == {"1"}, rows
        assert all(row[5] for row in rows), rows
        assert page.evaluate(TEXT, "shadow") == ""
        assert page.evaluate(CARD, "Objects") == "0"
        assert page.errors == []


def test_shadow(chromium: Browser, origin: Origin, tmp_path: Path, case: Case) -> None:
    """While S3 serves and the cache is compared, the page says so, and has the verdicts."""
    case.of(chromium.program, "shows on the dashboard how the cache compares with S3")
    config = origin.configuration(tmp_path).replace("min_free: 0", "min_free: 0, mode: shadow")
    with bucketfront(config, tmp_path) as proxy, chromium.page(f"{proxy.admin_url}/") as page:
        site = Site(origin, proxy, "shadowed")
        shows(page, "state", "cache.mode is shadow: S3 serves each read")
        shows(page, "shadow", "What the cache would have served wrongly: none.")
        for data in (b"before", b"after"):
            site.store("page", data)
            assert read(site, "page") == data
        shows(page, "shadow", "The cache compared with S3")

        def verdicts() -> dict[str, str]:
            return {row[0]: row[1] for row in page.evaluate(ROWS, "shadow")}

        until(lambda: (verdicts()["same"], verdicts()["stale"]) == ("1", "1"), "both responses are compared")
        shows(page, "sizing", "What the cache would give with cache.mode: serve")
        assert page.errors == []


@pytest.mark.parametrize("view", VIEWS)
def test_everybody_can_use_it(view: str, chromium: Browser, site: Site, case: Case) -> None:
    """No barrier is found by axe, nothing is wider than the screen, and the keyboard reaches the sections first."""
    try:
        packages = installs.npm(AXE)
    except NotInstallable as why:
        pytest.skip(f"not run: {why}")
    name, _, version = AXE.partition("@")
    case.of(Program(name, str(packages), version), f"looks for barriers of the dashboard: {view}")
    axe = (packages / "node_modules" / "axe-core" / "axe.min.js").read_text()
    width, height, dark = VIEWS[view]
    site.store("seen", object_bytes(1000))
    read(site, "seen")
    with opened(chromium, site.running) as page:
        page.view(width, height, dark=dark)
        page.evaluate(THEME, dark)
        found = page.evaluate(BARRIERS.replace("AXE", axe))
        assert found == []
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        page.reload()
        shows(page, "state", "serving")
        page.press("Tab")
        assert page.evaluate("() => document.activeElement.className") == "skip"


def test_a_restart(chromium: Browser, origin: Origin, tmp_path: Path, case: Case) -> None:
    """A page that is open says that the proxy is gone."""
    case.of(chromium.program, "keeps the dashboard open while the proxy ends")
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(bucketfront(origin.configuration(tmp_path), tmp_path))
        with chromium.page(f"{proxy.admin_url}/") as page:
            shows(page, "state", "serving")
            stack.close()
            until(lambda: page.evaluate(TEXT, "state") in ("no connection", "the proxy ended the stream"), "it is seen")
