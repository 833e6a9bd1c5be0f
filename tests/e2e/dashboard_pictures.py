"""Pictures of the dashboard for the README: `make pictures` writes docs/images anew. It needs Chromium, node and npm.

The dashboard shows a bucketfront with three mounts. Its clients request a few objects far more often than the others,
watch films, and seek in them. If pngquant is installed, it makes the files smaller.
"""

import contextlib
import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from browser import Browser, Page, browser
from bucketfront_process import ROOT, Running, bucketfront
from site_under_test import BUCKET, TIMEOUT_S, Origin, origin

IMAGES = ROOT / "docs" / "images"
TRAFFIC_S = 240.0  # the curves have the last five minutes
VIEWERS = 3
VIEWER_BYTES_PER_S = 3 << 20
READERS = 3
PAUSE_S = 0.02  # between two requests of a reader
SEED = 17
COLOURS = 128

FILMS = {f"{name}.mp4": 160 << 20 for name in ("coastline", "night-train", "glacier")}
SMALL = {
    **{f"assets/app.{number:04x}.js": 40_000 + 900 * number for number in range(60)},
    **{f"photos/{number:04}.jpg": 180_000 + 2_000 * number for number in range(240)},
    **{f"pages/{number:03}.html": 9_000 + 70 * number for number in range(120)},
}
SEGMENTS = {f"channel-1/segment{number:04}.m4s": 900_000 for number in range(80)}
SECTIONS = f"""\
mounts:
  - {{path: /, bucket: {BUCKET}, prefix: site/}}
  - {{path: /films/, bucket: {BUCKET}, prefix: films/}}
  - {{path: /live/, bucket: {BUCKET}, prefix: live/}}
pricing: {{currency: USD, per_1000_gets: 0.0004, per_1000_puts: 0.005, per_gb_out: 0.09}}
"""


@dataclass(frozen=True, slots=True)
class View:
    """One picture: its size, and the section at its top."""

    name: str
    width: int
    height: int
    section: str
    dark: bool


VIEWS = (
    View("dashboard-light", 1280, 1000, "overview", dark=False),
    View("dashboard-dark", 1280, 1000, "requests", dark=True),
    View("dashboard-phone", 390, 780, "overview", dark=False),
)
SHOW = """
({isDark, section}) => {
  const theme = document.getElementById("theme");
  if ((theme.textContent === "Dark") === isDark) theme.click();
  if (section === "overview") scrollTo(0, 0);
  else document.getElementById(section).scrollIntoView();
}
"""
ASK = """
(path) => {
  document.getElementById("tail-form").requestSubmit();
  document.getElementById("explain-path").value = path;
  document.getElementById("explain-form").requestSubmit();
  document.getElementById("entries-form").requestSubmit();
}
"""


def store(origin: Origin) -> None:
    """Store what the clients read."""
    data = random.Random(SEED).randbytes(1 << 20) * 160
    for prefix, objects in (("site/", SMALL), ("films/", FILMS), ("live/", SEGMENTS)):
        for name, size in objects.items():
            origin.objects.put_object(Bucket=BUCKET, Key=prefix + name, Body=data[:size])


def read(url: str, end: threading.Event, seed: int) -> None:
    """Request small objects and segments until the end, a few of them far more often than the others."""
    chance = random.Random(seed)
    names = [*SMALL, *(f"live/{name}" for name in SEGMENTS)]
    random.Random(SEED).shuffle(names)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    while not end.wait(PAUSE_S):
        chosen = names[min(int(chance.paretovariate(0.45)) - 1, len(names) - 1)]
        missing = chance.random() < 0.01
        connection.request("GET", "/photos/absent.jpg" if missing else f"/{chosen}")
        connection.getresponse().read()
    connection.close()


def watch(url: str, end: threading.Event, name: str, seed: int) -> None:
    """Take a film at the pace of a player, which seeks now and then, until the end."""
    chance = random.Random(seed)
    while not end.is_set():
        start = chance.randrange(0, FILMS[name] // 2)
        request = Request(f"{url}/films/{name}", headers={"Range": f"bytes={start}-"})
        with urlopen(request, timeout=TIMEOUT_S) as response:
            left = chance.randrange(12, 30)
            while left and not end.wait(1.0) and response.read(VIEWER_BYTES_PER_S):
                left -= 1


@contextlib.contextmanager
def traffic(running: Running) -> Iterator[None]:
    """Let all clients send requests until the end of the block."""
    end = threading.Event()
    threads = [threading.Thread(target=read, args=(running.url, end, seed)) for seed in range(READERS)]
    for seed, name in zip(range(VIEWERS), FILMS, strict=True):
        threads.append(threading.Thread(target=watch, args=(running.url, end, name, seed)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


def purge(running: Running) -> None:
    """Purge the films, so that they are fetched again."""
    body = json.dumps({"prefix": "/films/"}).encode()
    headers = {"Content-Type": "application/json"}
    urlopen(Request(f"{running.admin_url}/api/v1/purge", body, headers), timeout=TIMEOUT_S).close()


def take(chromium: Browser, running: Running, seconds: float) -> None:
    """Open the dashboard, let it see the traffic, and write the pictures."""
    with chromium.page(f"{running.admin_url}/") as page:
        page.view(VIEWS[0].width, VIEWS[0].height)
        with traffic(running):
            time.sleep(seconds * 0.85)
            purge(running)
            time.sleep(seconds * 0.15)
            page.evaluate(ASK, "/films/glacier.mp4")
            for view in VIEWS:
                picture(page, view)


def picture(page: Page, view: View) -> None:
    file = IMAGES / f"{view.name}.png"
    page.view(view.width, view.height, dark=view.dark)
    page.evaluate(SHOW, {"isDark": view.dark, "section": view.section})
    time.sleep(2)  # the page draws once a second
    page.screenshot(file)
    with contextlib.suppress(FileNotFoundError):  # pngquant is not installed
        subprocess.run(("pngquant", "--force", "--output", file, str(COLOURS), file), check=True)


def main(arguments: Sequence[str]) -> None:
    seconds = float(arguments[0]) if arguments else TRAFFIC_S
    IMAGES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(origin())
        store(server)
        server.log.delay(lambda seen: 1.5 if "/films/" in seen.target else 0.03)
        configuration = server.configuration(folder, SECTIONS).replace("min_free: 0", "min_free: 0, max_size: 420MiB")
        running = stack.enter_context(bucketfront(configuration, folder))
        take(stack.enter_context(browser("Chromium")), running, seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
