"""The rooms of the package (docs/architecture.md): imports point down its picture, and pure modules stay pure."""

import ast
import functools
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from rows import each_row

PACKAGE = Path(__file__).parent.parent / "proxy" / "bucketfront"

# From the bottom of the picture to its top. A room may use itself and earlier lines.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"bucketfront"}),  # the package itself: its version
    frozenset({"errors"}),
    frozenset({"keys", "http", "retry", "task_set", "troubles", "fair_share", "fair_slots", "request_trace"})
    | {"descriptor_channel"},
    frozenset({"config"}),
    frozenset({"process_log"}),
    frozenset({"cache"}),
    frozenset({"s3", "fleet"}),
    frozenset({"tus", "s3_events"}),
    frozenset({"server"}),
    frozenset({"front_end"}),
    frozenset({"warm", "tracing"}),
    frozenset({"admin"}),
    frozenset({"app", "cache_options", "checks", "renewal", "serving", "takeover"}),
    frozenset({"cli"}),
)
# Restrictions within the floors: from the room above, only these modules may be imported.
DOORS = {
    ("cache", "config"): set[str](),  # the cache gets values, not settings
    ("http", "keys"): set[str](),
    **{
        (room, "cache"): {"bucketfront.cache"}
        for room in ("s3", "fleet", "tus", "s3_events", "server", "warm", "admin", "app", "cache_options", "renewal")
    },
    ("takeover", "cache"): {"bucketfront.cache"},
    ("checks", "cache"): {"bucketfront.cache"},
    ("cli", "cache"): {"bucketfront.cache.storage.verification"},  # it works on a folder without a cache
}
# The floors inside the cache. Modules outside these folders stand below all of them.
CACHE_LAYERS = ("storage", "entries", "fetch", "upkeep")
# Values and Protocols without imports of the floors below. The cache fetches through one and reports with the other.
CACHE_GROUND = {"bucketfront.cache.origin"}
PURE = (
    "http/*.py", "keys.py", "errors.py", "retry.py", "troubles.py", "fair_share.py", "request_trace.py",
    "cache/storage/blocks.py", "cache/entries/budget.py", "cache/fetch/read_ahead.py", "cache/fetch/walk.py",
    "cache/fetch/mp4.py", "cache/fetch/part_choice.py", "cache/fetch/reader_cursor.py",
    "cache/fetch/ahead_credit.py", "s3/minimum_rate.py", "warm/pace.py", "warm/allowance.py", "warm/link.py",
    "warm/hls.py", "warm/dash.py", "warm/sitemap.py",
    "warm/xml_tree.py", "warm/manifest.py", "s3_events/event.py", "s3_events/event_parser.py",
    "s3_events/event_order.py", "s3_events/figures.py", "cache/upkeep/spared_version.py",
    "server/telemetry/hot_keys.py",
)  # fmt: skip
PURE_MAY_USE = (
    "bucketfront.http", "bucketfront.keys", "bucketfront.errors", "bucketfront.fair_share", "bucketfront.request_trace",
    "bucketfront.cache.storage.blocks", "bucketfront.warm.link", "bucketfront.warm.xml_tree",
    "bucketfront.cache.fetch.walk", "bucketfront.cache.fetch.read_ahead", "bucketfront.cache.fetch.reader_cursor",
    "bucketfront.s3_events.event",
)  # fmt: skip
PURE_PACKAGES = {"anycrc", "zlib_ng"}  # pure arithmetic
PURE_PARTS = {"urllib.parse"}  # of a package that also does I/O
# Modules of the standard library that do I/O or wait. The arithmetic of `time` is permitted, its clocks are not.
IMPURE = {"asyncio", "io", "os", "pathlib", "shutil", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading"}
IMPURE |= {"random", "concurrent", "urllib", "http", "logging"}
CLOCKS = {"time.time", "time.monotonic", "time.perf_counter", "time.sleep"}
SDK = {"aiobotocore", "botocore", "boto3", "moto", "werkzeug"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    first, *rest = module.split(".")
    assert first == "bucketfront"
    if not rest:
        return "bucketfront"
    return rest[0]


def floor_of(room: str) -> int:
    found = [number for number, rooms in enumerate(LAYERS) if room in rooms]
    assert found, f"bucketfront.{room} stands on no floor: give it one"
    return found[0]


@functools.cache
def imports(source: str) -> tuple[str, ...]:
    """Return dotted names, also those below TYPE_CHECKING and in functions, because a type is a dependency as well."""
    return tuple(_imports(source))


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where they point"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                # `from bucketfront.http import freshness` names a module, `import ObjectKey` from `keys` does not.
                is_module = (PACKAGE.parent / full.replace(".", "/")).with_suffix(".py").exists()
                yield full if is_module or node.module == "aiohttp" else str(node.module)


def wrong_imports(module: str, source: str) -> list[str]:
    room = room_of(module)
    found = []
    for name in imports(source):
        if not (name == "bucketfront" or name.startswith("bucketfront.")):
            continue
        other = room_of(name)
        doors = DOORS.get((room, other))
        if floor_of(other) > floor_of(room) or (doors is not None and name not in doors):
            found.append(f"{module} uses {name}")
    return found


def cache_floor(module: str) -> int:
    """Return the depth of a module in the cache. The modules directly in `cache/` are the lowest."""
    if module in CACHE_GROUND:
        return -1
    folder = module.removeprefix("bucketfront.cache.").partition(".")[0]
    return CACHE_LAYERS.index(folder) if folder in CACHE_LAYERS else len(CACHE_LAYERS)


def wrong_cache_imports(module: str, source: str) -> list[str]:
    inside = [name for name in imports(source) if name.startswith("bucketfront.cache")]
    return [f"{module} uses {name}" for name in inside if cache_floor(name) > cache_floor(module)]


def import_circle(sources: dict[str, str]) -> list[str]:
    """Return the modules of one import circle, none if there is no circle. `sources` by module name."""
    graph = {module: {name for name in imports(source) if name in sources} for module, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def impurities(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"line {node.lineno}: async")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in CLOCKS:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    for name in imports(source):
        top = name.partition(".")[0]
        is_fine = (
            name.startswith(PURE_MAY_USE)
            if top == "bucketfront"
            else name in PURE_PARTS or top in sys.stdlib_module_names - IMPURE | PURE_PACKAGES
        )
        if not is_fine:
            found.append(name)
    return found


@each_row("path", modules(), ids=name_of)
def test_imports_point_downward(path: Path) -> None:
    """No module uses a room below its own, and rooms above are entered by their doors."""
    assert wrong_imports(name_of(path), path.read_text()) == []


@each_row("path", sorted((PACKAGE / "cache").rglob("*.py")), ids=name_of)
def test_floors_of_the_cache(path: Path) -> None:
    """Storage imports no entry, entries import no fetch, and none of them imports the cache that contains them."""
    if path != PACKAGE / "cache" / "__init__.py":
        assert wrong_cache_imports(name_of(path), path.read_text()) == []


def test_no_import_circle() -> None:
    """No file imports itself by way of others, not even for annotations or inside a function."""
    assert import_circle({name_of(path): path.read_text() for path in modules()}) == []


def test_import_circles_are_found() -> None:
    """The search finds a circle through TYPE_CHECKING and a function."""
    sources = {
        "bucketfront.errors": "if TYPE_CHECKING:\n    from bucketfront.keys import ObjectKey",
        "bucketfront.keys": "def f():\n    from bucketfront.errors import BadPath",
    }
    assert import_circle(sources)
    assert not import_circle({**sources, "bucketfront.keys": ""})


@each_row(
    ("module", "source"),
    [
        ("bucketfront.cache.storage.index", "from bucketfront.cache.entries.entry import Entry"),
        ("bucketfront.cache.entries.entry", "from bucketfront.cache.fetch.fill import Fill"),
        ("bucketfront.cache.fetch.fill", "from bucketfront.cache.upkeep.space_reservation import SpaceReservation"),
        ("bucketfront.cache.upkeep.space_reservation", "from bucketfront.cache.cache import Cache"),
    ],
)
def test_wrong_imports_in_the_cache_are_found(module: str, source: str) -> None:
    """Wrong imports between the floors inside the cache are found."""
    assert wrong_cache_imports(module, source)


@each_row("path", sorted(path for glob in PURE for path in PACKAGE.glob(glob)), ids=name_of)
def test_pure_modules(path: Path) -> None:
    """The rules of HTTP, keys, blocks, budget, read-ahead and MP4 boxes do no I/O, do not wait and read no clock."""
    assert impurities(path.read_text()) == []


def test_only_s3_knows_the_sdk() -> None:
    """Aiobotocore is used in `s3/` and by the queue alone, and aiohttp's client there and in that of access control."""
    for path in modules():
        if room_of(name_of(path)) == "s3" or name_of(path) == "bucketfront.s3_events.sqs_queue":
            continue
        names = list(imports(path.read_text()))
        assert [name for name in names if name.partition(".")[0] in SDK] == [], path
        if name_of(path) == "bucketfront.server.access.http_client":
            continue
        # `import aiohttp` would include the client, so the server's parts are named one by one.
        assert [name for name in names if name == "aiohttp" or name.startswith("aiohttp.Client")] == [], path


def test_only_the_server_imports_aiohttp_web() -> None:
    """The rules, the cache and the origin do not import aiohttp's server."""
    for path in modules():
        if floor_of(room_of(name_of(path))) < floor_of("server"):
            names = list(imports(path.read_text()))
            assert [name for name in names if name.startswith("aiohttp.web")] == [], path


@each_row(
    ("module", "source"),
    [
        ("bucketfront.cache.storage.file_storage", "from bucketfront.server.application import Application"),
        ("bucketfront.cache.storage.file_storage", "import bucketfront.s3.client"),
        ("bucketfront.cache.storage.file_storage", "from bucketfront.config.settings import CacheSettings"),
        ("bucketfront.s3.client", "from bucketfront.cache.storage.index import Index"),
        ("bucketfront.server.application", "def f():\n    from bucketfront.cache.fetch.fill import Fill"),
        ("bucketfront.server.application", "if TYPE_CHECKING:\n    from bucketfront.app import App"),
        ("bucketfront.http.plan", "from bucketfront.keys import ObjectKey"),
        ("bucketfront.errors", "from bucketfront.keys import ObjectKey"),
    ],
)
def test_wrong_imports_are_found(module: str, source: str) -> None:
    """Imports in functions, below TYPE_CHECKING and past doors are found, or the tests above would prove nothing."""
    assert wrong_imports(module, source)


@each_row(
    "source",
    [
        "async def f(): ...",
        "import asyncio",
        "from pathlib import Path",
        "import aiohttp",
        "time.time()",
        "f(time.sleep)",
    ],
)
def test_impurities_are_found(source: str) -> None:
    """Forbidden modules and calls in a pure module are found."""
    assert impurities(source)
