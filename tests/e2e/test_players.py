"""Players in browsers. Page and media have different origins, and each picture that is shown says what it must be."""

import mimetypes
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import installs
import pytest
from browser import Browser, browser
from case import Case
from player_media import FORMS, make_film, make_form
from programs import TIMEOUT_S, Program, installed
from site_under_test import MOUNTS, Site

PAGES = Path(__file__).with_name("player_pages")
FAR_S, BACK_S = 32, 11
LIVE_S = 10
POLL_S = 0.1
AMPLIFICATION = 1.1
# A player leaves a request for the index, and one at each seek. Parts that bucketfront ends then have bytes in the
# buffers of sockets, which the origin has sent and which are fetched again. On a busy machine these buffers are full.
IN_FLIGHT = 3 * (4 << 20)

mimetypes.add_type("video/iso.segment", ".m4s")
mimetypes.add_type("video/mp2t", ".ts")
mimetypes.add_type("application/dash+xml", ".mpd")
mimetypes.add_type("application/vnd.apple.mpegurl", ".m3u8")


@dataclass(frozen=True, slots=True)
class Player:
    """A player. `package` is npm's, and `library` its script in there. A browser's own player has none."""

    name: str
    page: str
    package: str = ""
    library: str = ""


VIDEO = Player("<video>", "plain")
HLS_JS = Player("hls.js", "hls", "hls.js@1.7.4", "hls.js/dist/hls.min.js")
DASH_JS = Player("dash.js", "dash", "dashjs@5.2.1", "dashjs/dist/modern/umd/dash.all.min.js")
SHAKA = Player("shaka-player", "shaka", "shaka-player@5.2.12", "shaka-player/dist/shaka-player.compiled.js")
VIDEO_JS = Player("video.js", "video-js", "video.js@8.24.1", "video.js/dist/video.min.js")

PLAYED = [
    ("Chromium", VIDEO, "MP4"),
    ("Chromium", HLS_JS, "HLS, fMP4"),
    ("Chromium", HLS_JS, "HLS, TS"),
    ("Chromium", HLS_JS, "HLS, one fMP4 file"),
    ("Chromium", HLS_JS, "HLS, one TS file"),
    ("Chromium", DASH_JS, "DASH"),
    ("Chromium", DASH_JS, "DASH, one file a stream"),
    ("Chromium", SHAKA, "DASH, one file a stream"),
    ("Chromium", SHAKA, "HLS, TS"),
    ("Chromium", VIDEO_JS, "HLS, fMP4"),
    ("Chromium", VIDEO_JS, "MP4"),
    ("Firefox", VIDEO, "MP4"),
    ("Firefox", HLS_JS, "HLS, fMP4"),
    ("Firefox", HLS_JS, "HLS, one TS file"),
    ("Firefox", DASH_JS, "DASH"),
    ("Firefox", SHAKA, "DASH, one file a stream"),
    ("Firefox", VIDEO_JS, "HLS, TS"),
]


def slug(where: str, player: Player, form: str) -> str:
    return f"{where}-{player.page}-{form}".lower().replace(", ", "-").replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Pages:
    """The web server of the pages, which is no bucketfront."""

    folder: Path
    port: int

    def origin(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}"

    def url(self, player: Player, source: str, *, host: str = "127.0.0.1") -> str:
        """Return the page of a player that plays a URL. Raises NotInstallable."""
        folder = self.folder / player.page
        if not folder.exists():
            library = installs.npm(player.package) / "node_modules" / player.library if player.package else None
            folder.mkdir()
            shutil.copy(PAGES / f"{player.page}.html", folder)
            shutil.copy(PAGES / "watch.js", folder)
            if library:
                shutil.copy(library, folder / "library.js")
        return f"{self.origin(host)}/{player.page}/{player.page}.html?source={source}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, name="pages")
        thread.start()
        yield Pages(folder, server.server_port)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser("Chromium") as running:
        yield running


@pytest.fixture(scope="module")
def firefox() -> Iterator[Browser]:
    with browser("Firefox") as running:
        yield running


def named(player: Player, running: Browser) -> Program:
    """Return the program of a case: the player and its browser."""
    browser_name = f"{running.program.name} {running.program.version.partition('.')[0]}"
    version = player.package.rpartition("@")[2] or running.program.version
    return Program(f"{player.name} in {browser_name}", running.program.path, version)


def store(site: Site, film: Path, form: str) -> str:
    """Store the film in a form, and return the URL that a player opens."""
    if form == "MP4":
        return site.store(film.name, film.read_bytes(), ContentType="video/mp4")
    folder = film.parent / form
    if not folder.exists():
        make_form(film, form)
    for file in folder.iterdir():
        site.store(file.name, file.read_bytes(), ContentType=mimetypes.guess_type(file.name)[0] or "")
    return site.url_of(FORMS[form][-1])


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(POLL_S)


def size_of_touched(site: Site) -> int:
    """Return the size of all objects of which the origin has sent a byte."""
    names = {seen.target.rpartition("/")[2] for seen in site.requests() if seen.method == "GET" and seen.sent}
    return sum(len(site.stored(name) or b"") for name in names)


@pytest.mark.parametrize(("where", "player", "form"), PLAYED, ids=[slug(*each) for each in PLAYED])
def test_a_player_seeks(
    where: str,
    player: Player,
    form: str,
    site: Site,
    case: Case,
    film: Path,
    pages: Pages,
    request: pytest.FixtureRequest,
) -> None:
    """A player plays a film, seeks far ahead and back, and shows the pictures of these times (I1). No error appears on
    its console, and the origin sends hardly more than the objects of which the player wants something (I10).
    """
    running: Browser = request.getfixturevalue(where.lower())
    case.of(named(player, running), f"{form}: play, seek far, seek back")
    url = pages.url(player, store(site, film, form))
    site.forget()
    with running.page(url) as page:
        pictures = [page.evaluate("() => shown(0.5)"), *(page.evaluate("seek", to) for to in (FAR_S, BACK_S))]
        assert [abs(picture["time"] - picture["seconds"]) < 2 for picture in pictures] == [True] * 3, pictures
        assert page.errors == []
    case.count(site)
    assert case.sent <= AMPLIFICATION * size_of_touched(site) + IN_FLIGHT


def test_a_live_stream_plays_while_ffmpeg_writes_it(
    site: Site, case: Case, film: Path, pages: Pages, chromium: Browser, firefox: Browser
) -> None:
    """Two browsers play a stream to its end while ffmpeg writes it through bucketfront. No segment is lost, and no
    playlist goes back (I5, I7, I8).
    """
    ffmpeg = installed("ffmpeg")
    case.of(named(HLS_JS, chromium), f"live, written by ffmpeg {ffmpeg.version} through bucketfront; Firefox as well")
    live = ("-f", "hls", "-hls_time", "1", "-hls_list_size", "5", "-method", "PUT", site.url_of("live.m3u8"))
    source = ("-v", "error", "-nostdin", "-re", "-t", str(LIVE_S), "-i", str(film), "-c", "copy")
    url = pages.url(HLS_JS, site.url_of("live.m3u8"))
    with subprocess.Popen((ffmpeg.path, *source, *live), stderr=subprocess.PIPE, text=True) as writer:
        try:
            wait_until(lambda: site.stored("live.m3u8") is not None or writer.poll() is not None)
            with chromium.page(url) as one, firefox.page(url) as other:
                for page in (one, other):
                    page.evaluate("() => shown(0)")
                _, printed = writer.communicate(timeout=TIMEOUT_S)
                for page in (one, other):
                    assert page.evaluate("() => ended()") == LIVE_S - 1
                    assert page.errors == []
        finally:
            writer.kill()
    assert (writer.returncode, printed) == (0, "")
    playlist = (site.stored("live.m3u8") or b"").decode()
    assert playlist.endswith("#EXT-X-ENDLIST\n"), playlist
    assert site.names() == sorted(["live.m3u8", *(f"live{number}.ts" for number in range(LIVE_S))])
    case.count(site)
    assert case.sent <= AMPLIFICATION * sum(len(site.stored(name) or b"") for name in site.names())


def test_only_pages_of_named_origins_play(
    site_with: Callable[[str], Site], case: Case, film: Path, pages: Pages, chromium: Browser
) -> None:
    """A page of an origin that `cors.allow_origins` names plays with credentials and a header of its own. A page of
    another origin cannot.
    """
    site = site_with(f"{MOUNTS}\ncors: {{allow_origins: ['{pages.origin()}'], allow_credentials: true}}")
    case.of(named(HLS_JS, chromium), "`allow_origins` with credentials")
    source = store(site, film, "HLS, one fMP4 file")
    with chromium.page(f"{pages.url(HLS_JS, source)}&credentials") as page:
        assert page.evaluate("seek", FAR_S)["seconds"] >= FAR_S
        assert page.errors == []
    with chromium.page(pages.url(HLS_JS, source, host="localhost")) as page:
        assert page.evaluate("() => failed") == "manifestLoadError"
        assert "CORS" in page.errors[0].text
