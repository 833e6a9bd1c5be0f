"""Look up media types by file extension. Unlike the standard library's table, this one is the same on all machines.

The types are registered with IANA or come from the HTML standard. The others, which are marked, are those that players
and browsers know. Types below `text/` carry `charset=utf-8`, because a browser's default depends on its locale.
"""

import re
from collections.abc import Collection

from bucketfront.http.grammar import QUOTED_STRING, TOKEN

GENERIC = frozenset({"binary/octet-stream"})
"""Types without a meaning: S3 gives this one to an upload without a type. `application/octet-stream` may be meant."""

COMPRESSED = frozenset(
    {"application/brotli", "application/gzip", "application/gzip-compressed", "application/gzipped",
     "application/x-br", "application/x-brotli", "application/x-gunzip", "application/x-gzip", "application/x-zstd",
     "application/zstd", "gzip/document"}
)  # fmt: skip
"""Types that name a compression, not the compressed content (RFC 6713 section 3, RFC 8878 section 7.1 and others)."""

BY_EXTENSION = {
    # Streaming
    "m3u8": "application/vnd.apple.mpegurl",  # RFC 8216 section 10
    "m3u": "application/vnd.apple.mpegurl",
    "mpd": "application/dash+xml",  # ISO/IEC 23009-1 annex C
    "m4s": "video/iso.segment",
    "ts": "video/mp2t",  # RFC 3555; never Qt's translations, nor TypeScript
    "cmfv": "video/mp4",  # ISO/IEC 23000-19, CMAF tracks
    "cmfa": "audio/mp4",
    "cmft": "application/mp4",
    "ism": "application/vnd.ms-sstr+xml",  # Smooth Streaming; not registered
    "ismc": "application/vnd.ms-sstr+xml",  # not registered
    "ismv": "video/mp4",
    "isma": "audio/mp4",
    # Video
    "mp4": "video/mp4",  # RFC 4337
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",  # RFC 9559 registers video/matroska, which browsers do not know
    "ogv": "video/ogg",  # RFC 5334
    "mpg": "video/mpeg",  # RFC 2046
    "mpeg": "video/mpeg",
    "3gp": "video/3gpp",  # RFC 3839
    "3g2": "video/3gpp2",  # RFC 4393
    "avi": "video/x-msvideo",  # not registered
    "flv": "video/x-flv",  # not registered
    # Audio
    "m4a": "audio/mp4",
    "m4b": "audio/mp4",
    "mp3": "audio/mpeg",  # RFC 3003
    "aac": "audio/aac",
    "ac3": "audio/ac3",  # RFC 4184
    "ec3": "audio/eac3",  # RFC 4598
    "flac": "audio/flac",  # RFC 9639
    "ogg": "audio/ogg",  # RFC 5334
    "oga": "audio/ogg",
    "opus": "audio/ogg",  # RFC 7845 section 9
    "spx": "audio/ogg",
    "wav": "audio/wav",  # not registered; browsers know it
    "weba": "audio/webm",
    "mka": "audio/x-matroska",  # as mkv
    # Subtitles
    "vtt": "text/vtt; charset=utf-8",
    "srt": "application/x-subrip",  # not registered
    "ttml": "application/ttml+xml",
    "dfxp": "application/ttml+xml",
    # The web
    "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
    "xhtml": "application/xhtml+xml",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",  # RFC 9239
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "jsonld": "application/ld+json",
    "geojson": "application/geo+json",
    "webmanifest": "application/manifest+json",
    "wasm": "application/wasm",
    "xml": "application/xml",
    "xsl": "application/xslt+xml",
    "atom": "application/atom+xml",
    "rss": "application/rss+xml",  # not registered
    # Text
    "txt": "text/plain; charset=utf-8",
    "log": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "ics": "text/calendar; charset=utf-8",
    "vcf": "text/vcard; charset=utf-8",
    "yaml": "application/yaml",  # RFC 9512
    "yml": "application/yaml",
    # Images
    "svg": "image/svg+xml",
    "png": "image/png",
    "apng": "image/apng",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",  # RFC 9649
    "avif": "image/avif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jxl": "image/jxl",
    "bmp": "image/bmp",  # RFC 7903
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "ico": "image/vnd.microsoft.icon",
    "ktx2": "image/ktx2",
    # Fonts, RFC 8081
    "woff": "font/woff",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "ttc": "font/collection",
    "eot": "application/vnd.ms-fontobject",
    # Models
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "usdz": "model/vnd.usdz+zip",
    "stl": "model/stl",
    # Documents
    "pdf": "application/pdf",
    "rtf": "application/rtf",
    "epub": "application/epub+zip",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    # Archives
    "zip": "application/zip",
    "gz": "application/gzip",  # RFC 6713
    "tgz": "application/gzip",
    "zst": "application/zstd",  # RFC 8878
    "br": "application/x-brotli",  # not registered
    "tar": "application/x-tar",  # not registered
    "bz2": "application/x-bzip2",  # not registered
    "xz": "application/x-xz",  # not registered
    "7z": "application/x-7z-compressed",  # not registered
}

# Text by another name, and binaries that compress well. WOFF and most media are compressed already.
_COMPRESSIBLE = frozenset(
    {"application/json", "application/rtf", "application/vnd.apple.mpegurl", "application/vnd.ms-fontobject",
     "application/wasm", "application/x-subrip", "application/xml", "application/yaml", "font/collection", "font/otf",
     "font/ttf"}
)  # fmt: skip


# A type without parameters, then anything that is no second member of a list, because browsers take the last member
# (Fetch section 2.2.6).
_WHOLE = re.compile(f'({TOKEN}/{TOKEN})[ \\t]*+(?:;(?:[^",]|{QUOTED_STRING})*)?', re.DOTALL)

# Documents whose scripts run in the origin that serves them. HTML and XML are those of the MIME Sniffing standard,
# section 4.6; `text/xsl` and `text/rdf` are XML to some browsers as well. A browser shows the parts of a multipart or a
# message. PDF is scriptable there too, but its scripts run in a viewer, which has no access to the page's origin.
# JavaScript that is shown is text.
_ACTIVE = frozenset({"application/xml", "text/html", "text/rdf", "text/xml", "text/xsl"})
_ACTIVE_KINDS = frozenset({"message", "multipart"})


def of(name: str) -> str | None:
    """Return the Content-Type for a key or path by its last extension in any case, or None if it is unknown.

    A name that is all extension (`.ts`) has no extension.
    """
    stem, _, extension = name.rpartition("/")[2].rpartition(".")
    return BY_EXTENSION.get(extension.lower()) if stem.strip(".") else None


def is_compressible(name: str) -> bool:
    """Return whether a lookup of a compressed sibling of this key is worth it, judged by the extension."""
    content_type = of(name)
    if content_type is None:
        return False
    kind = essence(content_type)
    return kind.startswith("text/") or kind.endswith(("+json", "+xml")) or kind in _COMPRESSIBLE


def is_active(content_type: str) -> bool:
    """Return whether a browser may run scripts of a document of this Content-Type with the rights of its origin.

    Returns True for a value that is malformed, because browsers disagree on its meaning.
    """
    found = _WHOLE.fullmatch(content_type.strip(" \t"))
    if found is None:
        return True
    kind = found[1].lower()
    return kind in _ACTIVE or kind.endswith("+xml") or kind.partition("/")[0] in _ACTIVE_KINDS


def is_among(content_type: str, types: Collection[str]) -> bool:
    """Return whether a Content-Type is one of `types`, which are in lower case and may be `text/*` or `*/*`."""
    kind = essence(content_type)
    return "*/*" in types or kind in types or f"{kind.partition('/')[0]}/*" in types


def essence(content_type: str) -> str:
    """Return `text/html` of `Text/HTML; charset=utf-8`, the part by which types are compared."""
    return content_type.partition(";")[0].strip(" \t").lower()
