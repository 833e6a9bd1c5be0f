"""A film for players, made by ffmpeg in the forms that they play. Each picture shows its time.

The upper edge of a picture has eight fields that are white or black: the seconds of its time in binary, from the left.
"""

import subprocess
from pathlib import Path

from programs import TIMEOUT_S, installed

DURATION_S = 40
SEGMENT_S = 4
FRAMES_A_SECOND = 25
BITS_A_SECOND = 4_000_000  # so that the film has 20 MB, and seeks leave out most of it

_SECONDS = r"nullsrc=s=8x1,format=gray,geq=lum='if(mod(floor(T/pow(2,X)),2),235,16)',scale=640:40:flags=neighbor"
_FILM = (
    *("-f", "lavfi", "-i", "testsrc2=s=640x320,noise=alls=30:allf=t,format=yuv420p"),
    *("-f", "lavfi", "-i", f"{_SECONDS},format=yuv420p", "-f", "lavfi", "-i", "sine"),
    *("-filter_complex", "[1][0]vstack[v]", "-map", "[v]", "-map", "2:a", "-t", str(DURATION_S)),
    *("-c:v", "libx264", "-preset", "ultrafast", "-g", str(FRAMES_A_SECOND), "-sc_threshold", "0"),
    *("-b:v", str(BITS_A_SECOND), "-maxrate", str(BITS_A_SECOND), "-bufsize", str(BITS_A_SECOND)),
    *("-c:a", "aac", "-b:a", "64k"),
)
_HLS = ("-f", "hls", "-hls_time", str(SEGMENT_S), "-hls_playlist_type", "vod")
_DASH = ("-f", "dash", "-seg_duration", str(SEGMENT_S))
FORMS = {
    "HLS, fMP4": (*_HLS, "-hls_segment_type", "fmp4", "index.m3u8"),
    "HLS, TS": (*_HLS, "index.m3u8"),
    "HLS, one fMP4 file": (*_HLS, "-hls_segment_type", "fmp4", "-hls_flags", "single_file", "index.m3u8"),
    "HLS, one TS file": (*_HLS, "-hls_flags", "single_file", "index.m3u8"),
    "DASH": (*_DASH, "index.mpd"),
    "DASH, one file a stream": (*_DASH, "-single_file", "1", "index.mpd"),
}
"""Name -> ffmpeg's arguments, the last of which is the file that a player opens. The film itself is an MP4."""


def make_film(folder: Path) -> Path:
    """Make an MP4 with its index at the end, and return its path."""
    film = folder / "film.mp4"
    _ffmpeg(folder, *_FILM, film.name)
    return film


def make_form(film: Path, form: str) -> Path:
    """Return a folder with the film in that form."""
    folder = film.parent / form
    folder.mkdir()
    _ffmpeg(folder, "-i", str(film), "-c", "copy", *FORMS[form])
    return folder


def _ffmpeg(folder: Path, *arguments: str) -> None:
    command = (installed("ffmpeg").path, "-v", "error", "-nostdin", *arguments)
    subprocess.run(command, cwd=folder, check=True, timeout=TIMEOUT_S)
