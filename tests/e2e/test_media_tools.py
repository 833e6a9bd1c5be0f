"""Programs that read, seek and write media: judged by the frames that they decode, and by what the origin has."""

import contextlib
import os
import pwd
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from case import Case
from programs import Finished, Program, installed, run, version_of
from site_under_test import Site

PART = 8 << 20
BLOCK = 256 << 10
SECONDS = 40
FAR = 30.0  # seconds into the film
NEAR = 4.0
BRIEF = 2.0  # seconds that are played after a seek
STORED_WITHIN_S = 60.0  # seconds after the end of a program that does not wait for its responses
POLL_S = 0.05
TRIES = 5

MOVIE = {
    "mp4": ("movie.mp4",),
    "mp4, index first": ("first.mp4", "-movflags", "+faststart"),
    "mpeg-ts": ("movie.ts",),
    "matroska": ("movie.mkv",),
}
"""The film in several containers: its file, and ffmpeg's options for it."""

HLS = ("-f", "hls", "-hls_time", "2", "-hls_list_size", "0", "-hls_segment_filename", "{}/s%03d.ts", "{}/index.m3u8")
HLS_FMP4 = (*HLS[:-3], "-hls_segment_type", "fmp4", "-hls_segment_filename", "{}/s%03d.m4s", HLS[-1])
HLS_RANGES = (*HLS[:-3], "-hls_flags", "single_file", "{}/index.m3u8")
LIVE = ("-f", "hls", "-hls_time", "2", "-hls_list_size", "3", "-hls_delete_threshold", "1")
LIVE_HLS = (*LIVE, "-hls_flags", "delete_segments", *HLS[-3:])
DASH = ("-f", "dash", "-seg_duration", "2", "{}/index.mpd")
FRAGMENTS = ("-f", "mp4", "-movflags", "frag_keyframe+empty_moov", "{}/movie.mp4")
TRANSPORT = ("-f", "mpegts", "{}/movie.ts")
"""What ffmpeg writes, with {} for the place."""

STREAMS = {"hls": HLS, "hls, fmp4": HLS_FMP4, "hls, byte ranges": HLS_RANGES, "dash": DASH}
PERSISTENT, ANEW = ("-http_persistent", "1"), ("-http_persistent", "0")
WRITTEN = {
    "hls": (HLS, ANEW),
    "hls, persistent": (HLS, PERSISTENT),
    "hls, fmp4": (HLS_FMP4, ANEW),
    "hls, fmp4, persistent": (HLS_FMP4, PERSISTENT),
    "live hls": (LIVE_HLS, ANEW),
    "live hls, persistent": (LIVE_HLS, PERSISTENT),
    "dash": (DASH, ANEW),
    "dash, persistent": (DASH, PERSISTENT),
    "mp4": (FRAGMENTS, ()),
    "mpeg-ts": (TRANSPORT, ()),
}


@pytest.fixture(scope="module")
def ffmpeg() -> Program:
    return installed("ffmpeg", version=("-version",))


@pytest.fixture(scope="module")
def films(ffmpeg: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the film of MOVIE: 40 s of 4 Mbit/s, a key frame every 2 s, and sound."""
    folder = tmp_path_factory.mktemp("films")
    picture = (
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x180:rate=25",
        "-f",
        "lavfi",
        "-i",
        "sine=440",
        "-t",
        f"{SECONDS}",
    )
    rate = ("-b:v", "4M", "-minrate", "4M", "-maxrate", "4M", "-bufsize", "4M", "-x264opts", "nal-hrd=cbr")
    coding = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "50", *rate, "-c:a", "aac", "-b:a", "64k")
    run(ffmpeg.path, *picture, *coding, "movie.mp4", folder=folder)
    for name, *options in MOVIE.values():
        if name != "movie.mp4":
            run(ffmpeg.path, "-i", "movie.mp4", "-c", "copy", *options, name, folder=folder)
    return folder


def frames(ffmpeg: Program, source: str | Path, folder: Path, *options: str) -> str:
    """Return time and hash of each decoded frame and each piece of sound. What ffmpeg prints is an error."""
    folder.mkdir(exist_ok=True)
    read = (ffmpeg.path, "-v", "fatal", *options, "-i", str(source), "-y", "-f", "framemd5", "-bitexact", "frames")
    found = run(*read, folder=folder)
    assert found.output == ""
    text = (folder / "frames").read_text()
    assert text.count("\n") > 20, text
    return text


def seek(second: float) -> tuple[str, ...]:
    return ("-ss", f"{second}", "-t", f"{BRIEF}")


def most(size: int) -> int:
    """Return how many requests to the origin are too many for a player, which reads at its own pace: one a block."""
    return size // BLOCK + 8


@pytest.mark.parametrize("kind", MOVIE)
def test_ffmpeg_reads(kind: str, site: Site, case: Case, tmp_path: Path, ffmpeg: Program, films: Path) -> None:
    """Ffmpeg decodes a file that nothing has cached, and each frame is that of the local file (I1, I10)."""
    case.of(ffmpeg, f"decodes a film ({kind})")
    local = films / MOVIE[kind][0]
    url = site.store(local.name, local.read_bytes())
    assert frames(ffmpeg, url, tmp_path / "read") == frames(ffmpeg, local, tmp_path / "local")
    case.count(site)
    assert case.sent <= 1.1 * local.stat().st_size
    assert case.requests <= most(local.stat().st_size)


@pytest.mark.parametrize("kind", MOVIE)
def test_ffmpeg_seeks(kind: str, site: Site, case: Case, tmp_path: Path, ffmpeg: Program, films: Path) -> None:
    """Ffmpeg goes far and back, gets the frames of the local file, and the origin sends a part of the film only."""
    case.of(ffmpeg, f"seeks far and back ({kind})")
    local = films / MOVIE[kind][0]
    url = site.store(local.name, local.read_bytes())
    for place in (FAR, NEAR):
        expected = frames(ffmpeg, local, tmp_path / "local", *seek(place))
        assert frames(ffmpeg, url, tmp_path / "read", *seek(place)) == expected
    case.count(site)
    assert case.sent <= 0.75 * local.stat().st_size
    assert case.requests <= most(local.stat().st_size)


def test_ffprobe_reads_the_index_only(site: Site, case: Case, tmp_path: Path, films: Path) -> None:
    """Ffprobe finds the same streams as in the local files, and of an MP4 the origin sends the index and the start."""
    ffprobe = installed("ffprobe", "ffmpeg", version=("-version",))
    case.of(ffprobe, "reads streams and duration")
    for name, *_ in MOVIE.values():
        local = films / name
        url = site.store(name, local.read_bytes())
        command = (ffprobe.path, "-v", "fatal", "-show_streams", "-show_entries", "format=duration,size,nb_streams")
        found, expected = (run(*command, str(source), folder=tmp_path).stdout for source in (url, local))
        assert found == expected
        if name.endswith("mp4"):
            case.count(site)
            assert case.sent <= 0.25 * local.stat().st_size
        site.forget()


@pytest.mark.parametrize("kind", STREAMS)
def test_ffmpeg_plays(kind: str, site: Site, case: Case, tmp_path: Path, ffmpeg: Program, films: Path) -> None:
    """Ffmpeg plays a stream of segments or byte ranges, and seeks in it, with the frames of the local stream (I1)."""
    case.of(ffmpeg, f"plays a stream ({kind})")
    local = write(ffmpeg, films, tmp_path / "stream", STREAMS[kind], place=".")
    files = {path.name: path.read_bytes() for path in local.iterdir() if path.name != "output"}
    for name, data in files.items():
        site.store(name, data)
    (index,) = files.keys() & {"index.m3u8", "index.mpd"}
    for options in ((),) if kind == "hls, fmp4" else ((), seek(6)):  # ffmpeg finds nothing there, locally as well
        expected = frames(ffmpeg, local / index, tmp_path / "local", *options)
        assert frames(ffmpeg, site.url_of(index), tmp_path / "read", *options) == expected
    case.count(site)
    assert case.sent <= 1.1 * sum(map(len, files.values()))


def write(
    ffmpeg: Program, films: Path, folder: Path, what: tuple[str, ...], *options: str, place: str, rate: int = 0
) -> Path:
    """Write 10 s of the film to a place, which is a folder or a URL. The same options give the same bytes.

    `rate` is how many times as fast as it plays, 0 as fast as possible.
    """
    folder.mkdir()
    pace = ("-readrate", f"{rate}") if rate else ()
    read = ("-v", "error", "-fflags", "+bitexact", *pace, "-t", "10", "-i", films / "movie.mp4")
    exact = ("-c", "copy", "-fflags", "+bitexact", "-flags", "+bitexact")
    *written, last = (part.replace("{}", place) for part in what)
    printed = run(ffmpeg.path, *read, *exact, *written, *options, last, folder=folder).output
    assert not [line for line in printed.splitlines() if "Cannot use rename" not in line], printed
    return folder


def assert_stored(site: Site, expected: dict[str, bytes]) -> None:
    """Wait until the origin has just these objects. ffmpeg may end before the response to its last request."""
    deadline = time.monotonic() + STORED_WITHIN_S
    while True:
        found = {name: site.stored(name) for name in site.names()}
        if found == expected:
            return
        if time.monotonic() > deadline:
            sizes = {name: len(data) for name, data in expected.items()}
            pytest.fail(f"expected {sizes}, found { {name: len(data or b'') for name, data in found.items()} }")
        time.sleep(POLL_S)


@pytest.mark.parametrize("kind", WRITTEN)
def test_ffmpeg_writes(kind: str, site: Site, case: Case, tmp_path: Path, ffmpeg: Program, films: Path) -> None:
    """What ffmpeg writes with `-method PUT` is stored whole: the same files as on a disk, and its deletes are done."""
    case.of(ffmpeg, f"writes with PUT ({kind})")
    what, options = WRITTEN[kind]
    local = write(ffmpeg, films, tmp_path / "local", what, place=".")
    # ffmpeg goes on before it has a response. As fast as possible, it writes the next playlist beside the last one on
    # another connection, so that either may be stored last, and deletes segments whose PUT is still on its way.
    rate = 0 if what in (FRAGMENTS, TRANSPORT) else 4
    write(ffmpeg, films, tmp_path / "written", what, "-method", "PUT", *options, place=site.url, rate=rate)
    assert_stored(site, {path.name: path.read_bytes() for path in local.iterdir() if path.name != "output"})
    case.count(site)


def test_ffmpeg_writes_pictures(site: Site, case: Case, tmp_path: Path, ffmpeg: Program, films: Path) -> None:
    """Each picture that ffmpeg writes is stored whole, although ffmpeg closes its connection at once."""
    case.of(ffmpeg, "writes pictures with PUT (image2)")
    read = (ffmpeg.path, "-v", "error", "-t", "2", "-i", str(films / "movie.mp4"), "-r", "5", "-f", "image2")
    local = tmp_path / "local"
    local.mkdir()
    assert run(*read, "-bitexact", "%03d.png", folder=local).output == ""
    put = ("-protocol_opts", "method=PUT", f"{site.url}/%03d.png")
    assert run(*read, "-bitexact", *put, folder=tmp_path).output == ""
    pictures = {path.name: path.read_bytes() for path in local.glob("*.png")}
    assert len(pictures) > 5
    assert_stored(site, pictures)
    case.count(site)


@pytest.mark.parametrize("options", [ANEW, PERSISTENT], ids=["", "persistent"])
def test_a_live_playlist_grows(
    options: tuple[str, ...], site: Site, case: Case, tmp_path: Path, ffmpeg: Program, films: Path
) -> None:
    """While ffmpeg writes a live stream, a reader gets whole playlists, and each begins and ends no earlier than the
    one before (I7, I8).
    """
    case.of(ffmpeg, f"writes live HLS while it is read{', persistent' if options == PERSISTENT else ''}")
    seen: list[bytes] = []
    paced = ("-method", "PUT", *options)
    with ThreadPoolExecutor() as pool:
        for number in range(TRIES):  # on a busy machine the reader may miss most of a stream
            folder, seen = tmp_path / f"{number}", []
            place = f"{site.url}/{number}"
            writer = pool.submit(write, ffmpeg, films, folder, LIVE_HLS, *paced, place=place, rate=4)
            while not writer.done():
                response = site.send("GET", f"{number}/index.m3u8")
                assert response.status in (200, 404)
                if response.status == 200 and response.body not in seen[-1:]:
                    seen.append(response.body)
                time.sleep(POLL_S)
            writer.result()
            spans = [(int(sequence_of(text)), text.count(b"#EXTINF")) for text in seen]
            assert spans == sorted(spans, key=lambda span: (span[0], span[0] + span[1]))
            if len(seen) >= 3:
                break
    assert len(seen) >= 3, seen
    case.count(site)


def sequence_of(playlist: bytes) -> bytes:
    """Return the number of the first segment of a whole playlist."""
    assert playlist.startswith(b"#EXTM3U\n")
    assert playlist.endswith(b"\n")
    found = re.search(rb"^#EXT-X-MEDIA-SEQUENCE:(\d+)$", playlist, re.MULTILINE)
    assert found is not None, playlist
    return found[1]


def test_mpv_plays_and_seeks(site: Site, case: Case, tmp_path: Path, films: Path) -> None:
    """Mpv starts far into the film, then near its begin, then plays all: the frames of the local file (I1, I10)."""
    mpv = installed("mpv")
    case.of(mpv, "plays whole, starts at a second (mp4)")
    local = films / "movie.mp4"
    url = site.store(local.name, local.read_bytes())
    base = (mpv.path, "--no-config", "--msg-level=all=error", "--ovc=rawvideo", "--oac=pcm_s16le", "--of=framemd5")
    places = (("--start=30", "--length=2", "--no-audio"), ("--start=4", "--length=2", "--no-video"), ("--no-audio",))
    for options in places:  # of one stream, as mpv numbers them by chance
        kept = []
        for name, source in (("local", str(local)), ("read", url)):
            assert run(*base, *options, f"--o={name}", source, folder=tmp_path).output == ""
            kept.append((tmp_path / name).read_text())
        assert kept[0] == kept[1]
        assert kept[0].count("\n") > 10
    case.count(site)
    assert case.sent <= 1.1 * local.stat().st_size
    assert case.requests <= most(local.stat().st_size)


def test_mpv_shows_without_a_screen(site: Site, case: Case, tmp_path: Path, films: Path) -> None:
    """Mpv without a screen and a sound card plays to the end, and seeks there at the start of its script."""
    mpv = installed("mpv")
    case.of(mpv, "`--vo=null --ao=null`, `--start`")
    url = site.store("movie.mkv", (films / "movie.mkv").read_bytes())
    quiet = (
        "--no-config",
        "--msg-level=all=error",
        "--vo=null",
        "--ao=null",
        "--ao-null-untimed",
        "--untimed",
        "--start=90%",
    )
    assert run(mpv.path, *quiet, url, folder=tmp_path).output == ""
    case.count(site)
    assert case.sent <= 0.5 * (films / "movie.mkv").stat().st_size


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that another user may write into. VLC does not run as root."""
    with tempfile.TemporaryDirectory(prefix="bucketfront-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def vlc(folder: Path, *options: str) -> None:
    """Run VLC to the end of the file, as another user than root."""
    drop: tuple[str, ...] = ()
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        setpriv = installed("setpriv", "util-linux")
        drop = (setpriv.path, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    player = installed("cvlc", "vlc-bin")
    plain = ("-q", "-I", "dummy", "--no-media-library", "--play-and-exit", "--no-color")
    run(*drop, player.path, *plain, *options, "vlc://quit", folder=folder)


def test_vlc_reads_and_seeks(site: Site, case: Case, open_folder: Path, ffmpeg: Program, films: Path) -> None:
    """VLC's copy of a seconds' stretch far in the film has the local frames, and its copy of all is the file (I1)."""
    version = version_of("dpkg-query", "-W", "-f", "${Version}", "vlc-bin")
    case.of(Program("VLC", "cvlc", version), "copies whole, starts at a second (mp4)")
    local = open_folder / "movie.mp4"
    local.write_bytes((films / "movie.mp4").read_bytes())
    url = site.store(local.name, local.read_bytes())
    kept = []
    for name, source in (("local.ts", str(local)), ("read.ts", url)):
        stretch = (
            "--start-time=30",
            "--stop-time=32",
            "--sout",
            f"#std{{access=file,mux=ts,dst={open_folder}/{name}}}",
        )
        vlc(open_folder, *stretch, source)
        kept.append(frames(ffmpeg, open_folder / name, open_folder / "frames"))
    assert kept[0] == kept[1]
    vlc(open_folder, "--demux=dump", f"--demuxdump-file={open_folder}/whole", url)
    assert (open_folder / "whole").read_bytes() == local.read_bytes()
    case.count(site)
    assert case.sent <= 1.1 * local.stat().st_size
    assert case.requests <= most(local.stat().st_size)


def gstreamer(name: str, package: str = "gstreamer1.0-tools") -> Program:
    program = installed(name, package)
    return Program(f"GStreamer ({name})", program.path, program.version)


SHOWN = ("checksumsink hash=md5", "fakesink")
PLAY_TIMEOUTS_S = (25.0, 25.0, 50.0, 50.0)  # the later ones for a slow machine


def played(*command: str, folder: Path) -> Finished:
    """Run a player, whose play is repeated if it does not end.

    GStreamer 1.22 hangs in one of ten plays over HTTP, from nginx as well.
    """
    for timeout in PLAY_TIMEOUTS_S:
        with contextlib.suppress(pytest.fail.Exception):
            return run(*command, folder=folder, timeout=timeout)
    return run(*command, folder=folder)


@pytest.mark.parametrize("kind", MOVIE)
def test_gstreamer_plays(kind: str, site: Site, case: Case, tmp_path: Path, films: Path) -> None:
    """GStreamer's playbin shows each frame of the local file (I1, I10)."""
    launch = gstreamer("gst-launch-1.0")
    case.of(launch, f"playbin ({kind})")
    local = films / MOVIE[kind][0]
    url = site.store(local.name, local.read_bytes())
    picture, sound = SHOWN
    sinks = (f"video-sink={picture}", f"audio-sink={sound}")
    shown = [
        played(launch.path, "-q", "playbin", f"uri={uri}", *sinks, folder=tmp_path).stdout
        for uri in (local.as_uri(), url)
    ]
    assert shown[0] == shown[1]
    assert shown[0].count(b"\n") == SECONDS * 25
    case.count(site)
    assert case.sent <= 1.1 * local.stat().st_size + 2 * PART  # on their way when it left for the index at the end
    assert case.requests <= most(local.stat().st_size)


def test_gstreamer_seeks(site: Site, case: Case, tmp_path: Path, films: Path) -> None:
    """GStreamer's player starts far into the film, with the frames of the local file (I1)."""
    player = gstreamer("gst-play-1.0", "gstreamer1.0-plugins-base-apps")
    case.of(player, "starts at a second (mp4)")
    local = films / "movie.mp4"
    url = site.store(local.name, local.read_bytes())
    picture, sound = SHOWN
    quiet = ("--no-interactive", "-q", "--start-position=30", f"--videosink={picture}", f"--audiosink={sound}")
    expected, shown = (
        [line for line in played(player.path, *quiet, uri, folder=tmp_path).stdout.splitlines() if line >= b"0:00:30"]
        for uri in (local.as_uri(), url)
    )  # it may show the first frame before it seeks
    assert shown == expected
    assert len(shown) == (SECONDS - 30) * 25
    case.count(site)
    assert case.sent <= 1.1 * local.stat().st_size + 2 * PART  # as above


def test_gstreamer_copies(site: Site, case: Case, tmp_path: Path, films: Path) -> None:
    """Souphttpsrc delivers the bytes of the object (I1, I3)."""
    launch = gstreamer("gst-launch-1.0")
    case.of(launch, "souphttpsrc")
    data = (films / "movie.ts").read_bytes()
    url = site.store("movie.ts", data)
    copy = ("souphttpsrc", f"location={url}", "!", "filesink", "location=copy")
    assert played(launch.path, "-q", *copy, folder=tmp_path).output == ""
    assert (tmp_path / "copy").read_bytes() == data
    case.count(site)
    assert case.sent <= 1.1 * len(data) + 2 * PART  # on their way when a play hung and was ended
    assert case.requests <= 1.3 * len(data) / PART + 8


def test_gstreamer_writes_in_pieces(site: Site, case: Case, tmp_path: Path, films: Path) -> None:
    """A PUT of a piece with Content-Range is refused, so souphttpclientsink cannot put a piece in place of a file."""
    launch = gstreamer("gst-launch-1.0")
    case.of(launch, "souphttpclientsink")
    case.cannot("souphttpclientsink writes in pieces with Content-Range, for which S3 has no write: 400.")
    local = films / "movie.ts"
    put = ("filesrc", f"location={local}", "!", "souphttpclientsink", f"location={site.url}/movie.ts")
    played(launch.path, *put, folder=tmp_path)  # it does not look at the status
    data = site.stored("movie.ts") or b""
    assert data  # the first piece, which may be of any length
    assert local.read_bytes().startswith(data)
