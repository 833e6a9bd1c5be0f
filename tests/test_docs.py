"""The documentation's links: files and anchors exist, and so does each invariant that the code names."""

import functools
import json
import re
from collections import Counter
from collections.abc import Set as AbstractSet
from pathlib import Path

import log_fields_page
import manual_page
from configuration_page import Key, all_keys, page
from rows import each_row

from bucketfront.admin.collectors.table import FAMILIES
from bucketfront.config import loader
from bucketfront.config.schema import schema

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGE = ROOT / "proxy" / "bucketfront"
CLASSES_OF_OTHERS = {
    "RequestHandler", "ReadableSpan", "BatchSpanProcessor",  # of aiohttp and OpenTelemetry
    "TagCount", "IfMatch", "IfNoneMatch", "IfModifiedSince", "PartNumber", "ResponseContentType",
    "ResponseContentDisposition",  # parameters and results of the SDK, in docs/compatibility.md
}  # fmt: skip
PREFIXES_OF_OTHERS = ("proxy_", "open_file_cache", "use_attribute_docstrings")  # settings of nginx and pydantic

_PYTHON_FILE = re.compile(r"`([\w/]+\.py)`")
_FOLDER = re.compile(r"`(\w[\w/]*/)`")
_CLASS = re.compile(r"`([A-Z][a-z]+[A-Z]\w*|[A-Z][a-z]+(?=\.\w))(?:\.(\w+))?`")
_SNAKE_CASE = re.compile(r"`([a-z]+_[a-z_]+)`")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_NOT_IN_ANCHOR = re.compile(r"[^\w -]")
_INVARIANT = re.compile(r"docs/invariants\.md#([\w-]+)")


@functools.cache
def sources() -> list[str]:
    """Return the texts of all modules but this one, which each process of pytest-xdist imports and few need to read."""
    folders = (ROOT / "proxy", ROOT / "tests")
    return [path.read_text() for folder in folders for path in folder.rglob("*.py") if path != Path(__file__)]


@functools.cache
def words() -> AbstractSet[str]:
    """Return the words of all modules, and the names of metrics with the prefix of all."""
    metrics = {family.exposed_name for families in FAMILIES.values() for family in families}
    return {word for source in sources() for word in re.findall(r"\w+", source)} | metrics


@functools.cache
def classes() -> AbstractSet[str]:
    return {name for source in sources() for name in re.findall(r"^ *class (\w+)", source, re.MULTILINE)}


@functools.cache
def folders() -> AbstractSet[str]:
    """Return each folder with sources by each end of its path: "/a/b/" and "/b/"."""
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    parts_of_folders = {path.parent.relative_to(ROOT).parts for path in paths}
    return {f"/{'/'.join(parts[start:])}/" for parts in parts_of_folders for start in range(len(parts))}


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them: a repeated heading gets a number."""
    seen = Counter[str]()
    found = set[str]()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = _NOT_IN_ANCHOR.sub("", title.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead to no file or to no heading."""
    broken = []
    for link in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(link)
        elif anchor and target.suffix == ".md":
            content = target.read_text() if path else text
            if anchor not in anchors_of(content):
                broken.append(link)
    return broken


def unknown_names(text: str) -> list[str]:
    """Return the Python files, folders and identifiers in backticks that the repository does not have."""
    places = (ROOT, PACKAGE, ROOT / "tests")
    unknown = [path for path in _PYTHON_FILE.findall(text) if not any((at / path).exists() for at in places)]
    unknown += [path for path in _FOLDER.findall(text) if f"/{path}" not in folders()]
    for name, member in _CLASS.findall(text):
        if (name not in classes() and name not in CLASSES_OF_OTHERS) or (member and member not in words()):
            unknown.append(f"{name}.{member}" if member else name)
    unknown += [
        name
        for name in _SNAKE_CASE.findall(text)
        # Prometheus adds the suffix to the names of counters.
        if not {name, name.removesuffix("_total")} & words() and not name.startswith(PREFIXES_OF_OTHERS)
    ]
    return unknown


@each_row("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    """Each relative link leads to a file, and each anchor to a heading of it."""
    assert broken_links(page, page.read_text()) == []


def test_invariants_of_the_code_exist() -> None:
    """Each anchor of docs/invariants.md that the code or a test names is a heading there."""
    known = anchors_of((ROOT / "docs" / "invariants.md").read_text())
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    named = {anchor: path for path in sources for anchor in _INVARIANT.findall(path.read_text())}
    assert {anchor: path for anchor, path in named.items() if anchor not in known} == {}


@each_row("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_the_code_exist(page: Path) -> None:
    """Each Python file, folder and identifier that a page names exists. Only the changelog may name former ones."""
    if page.name != "CHANGELOG.md":
        assert unknown_names(page.read_text()) == []


def test_unknown_names_are_found() -> None:
    """Unknown files, folders, classes, members and functions are reported, and known ones are not."""
    known = "`http/plan.py` `test_docs.py` `s3/upload/` `upload/` `Plan` `Cache.lookup` `parse_target` `/upload/`"
    assert unknown_names(known) == []
    unknown = ["`http/none.py`", "`s3/none/`", "`NoSuchClass`", "`Cache.no_such_member`", "`no_such_function`"]
    assert unknown_names(f"{known} {' '.join(unknown)}") == [name.strip("`") for name in unknown]


def rooms_below() -> dict[str, set[str]]:
    """Return, for each room of the picture in docs/architecture.md, the rooms that its arrows lead to."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    picture = text[text.index("flowchart TD") : text.index("```", text.index("flowchart TD"))]
    groups = {
        name: set(re.findall(r"(\w+)\[", body)) | {name}
        for name, body in re.findall(r"subgraph (\w+)(.*?)\n    end", picture, re.DOTALL)
    }
    arrows = set[tuple[str, str]]()
    for start, end in re.findall(r"(\w+)(?:\[[^]]*\])? -.*?-> (\w+)", picture):
        arrows |= {(one, other) for one in groups.get(start, {start}) for other in groups.get(end, {end})}
    below = {room: {other for one, other in arrows if one == room} for room, _ in arrows}
    for _ in below:
        below = {room: found.union(*(below.get(other, set()) for other in found)) for room, found in below.items()}
    return below


def room_in_picture(module: str) -> str:
    """Return the node of the picture that a module belongs to."""
    _, first, *rest = [*module.split("."), ""]
    if first in {"server", "cache"} and (PACKAGE / first / rest[0]).is_dir() and rest[0]:
        return rest[0]
    ground = ("descriptor_channel", "fair_share", "fair_slots", "keys", "request_trace", "retry", "task_set")
    merged = dict.fromkeys((*ground, "troubles"), "errors") | {"cache": "door"}
    merged |= dict.fromkeys(("cache_options", "checks", "renewal", "serving", "takeover"), "app")
    return merged.get(first, first)


def test_imports_follow_the_picture() -> None:
    """Each import between rooms is a path of arrows in the picture of docs/architecture.md."""
    below = rooms_below()
    strays = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        room = room_in_picture(module)
        for name in re.findall(r"^ *from (bucketfront\.[\w.]+) import", path.read_text(), re.MULTILINE):
            other = room_in_picture(name)
            # The modules directly in `server/` stand between its rooms, and `cache.origin` is a Protocol for all.
            is_drawn = "server" not in {room, other} and name != "bucketfront.cache.origin"
            if is_drawn and other != room and other not in below.get(room, ()):
                strays.add(f"{module} uses {name}")
    assert strays == set()


def test_tests_of_invariants_name_them() -> None:
    """Each test file that docs/invariants.md lists for an invariant has the invariant's number or anchor."""
    sections = re.split(r"^### ", (ROOT / "docs" / "invariants.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(sections) >= 33
    for section in sections:
        number, tested = (
            re.search(r"\((I\d+)\)", section),
            re.search(r"Tested\s+in(.*?)\.$", section, re.DOTALL | re.MULTILINE),
        )
        assert number is not None, section
        assert tested is not None, section
        anchor = anchors_of(f"### {section.partition(chr(10))[0]}").pop()
        for path in _PYTHON_FILE.findall(tested[1]):
            named = re.search(rf"\b{number[1]}\b|invariants\.md#{anchor}\b", (ROOT / "tests" / path).read_text())
            assert named, f"{path} does not name {number[1]}"


def test_configuration_page_is_current() -> None:
    """docs/configuration.md is what the models of the settings yield."""
    is_current = (ROOT / "docs" / "configuration.md").read_text() == page()
    assert is_current, "docs/configuration.md differs from the models: run `make reference` and commit the page"


def test_log_fields_page_is_current() -> None:
    """The table of docs/log-fields.md is that of the access log."""
    text = log_fields_page.PAGE.read_text()
    assert text == log_fields_page.page(text), "docs/log-fields.md differs from the code: run `make reference`"


def test_manual_page_is_current() -> None:
    """proxy/bucketfront.1, which the wheel has, shows all commands and options as they are."""
    is_current = manual_page.PAGE.read_text() == manual_page.page()
    assert is_current, "the manual page is old: run `make man`, or python tests/manual_page.py > proxy/bucketfront.1"


def test_schema_is_current() -> None:
    """docs/proxy.schema.json is what the models of the settings yield, and proxy.yaml names it for editors."""
    is_current = json.loads((ROOT / "docs" / "proxy.schema.json").read_text()) == schema()
    assert is_current, "docs/proxy.schema.json differs from the models: run `make reference` and commit the file"
    first, *_ = (ROOT / "proxy.yaml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=docs/proxy.schema.json"


def test_every_key_has_a_text() -> None:
    """Each key of the configuration page has a text, and no type there is one of Python's names."""
    keys = all_keys()
    assert len(keys) > 70
    assert [key.path for key in keys if not key.text.endswith(".")] == []
    assert [key.kind for key in keys if re.search(r"str|int|float|None|bool|tuple|<", key.kind)] == []


S3_AROUND = {
    "tls": "{anonymous: {buckets: ['*']}, tls: {certificate: a, key: b}}",
    "keys": "{keys: [{id: a, secret: 0123456789abcdef, buckets: ['*']}]}",
}


@each_row("key", [key for key in all_keys() if key.examples], ids=lambda key: key.path)
def test_examples_of_keys_are_valid(key: Key) -> None:
    """A key takes each of its examples from the environment."""
    around = {"BUCKETFRONT_MOUNTS": "[{path: /, bucket: b}]"}
    if key.loc[:2] == ("freshness", "rules"):
        around["BUCKETFRONT_FRESHNESS__RULES"] = "[{match: a}]"
    if key.loc[-1] in ("read", "write"):
        around["BUCKETFRONT_ACCESS"] = "{lan: {networks: [10.0.0.0/8]}, team: {networks: [10.0.0.1]}}"
    if key.loc[2:3] == ("jwt",):
        around["BUCKETFRONT_ACCESS"] = "{name: {jwt: {jwks: https://a.example, issuer: a, audience: b}}}"
    if key.loc[0] == "s3":
        around["BUCKETFRONT_S3"] = S3_AROUND.get(str(key.loc[1]), "{anonymous: {buckets: ['*']}}")
    if "tls" in key.loc or "client_certificate" in key.loc:
        around["BUCKETFRONT_SERVER__TLS"] = "{certificate: a, key: b, client_ca: c, client_certificates: optional}"
        around["BUCKETFRONT_ADMIN__TLS"] = "{certificate: a, key: b}"
        tls = around["BUCKETFRONT_SERVER__TLS"]
        around["BUCKETFRONT_SERVER__LISTENERS"] = f"[{{host: 127.0.0.1, port: 1, tls: {tls}}}]"
    if key.loc == ("invalidation", "refresh_rate"):
        around["BUCKETFRONT_INVALIDATION__WEBHOOK__TOKEN"] = "0123456789abcdef"
    if key.loc[0] == "warm_start":
        around["BUCKETFRONT_WARM_START__PEER"] = "http://a"
    for example in key.examples:
        # The secret files of the examples do not exist here.
        assert loader.load(None, {**around, key.variable: example.replace("file:/run/secrets/", "secret-of-a-file-")})


@each_row("page", ["README.md", "docs/configuration.md", "docs/http.md"])
def test_examples_of_pages_are_valid(page: str, tmp_path: Path) -> None:
    """Each YAML example of a page is a valid configuration; where it has no mounts, one is added."""
    path = tmp_path / "proxy.yaml"
    # The secret files of the examples do not exist here.
    text = (ROOT / page).read_text().replace("file:/run/secrets/", "secret-of-a-file-")
    for example in _YAML.findall(text):
        path.write_text(example if "mounts:" in example else f"mounts: [{{path: /, bucket: b}}]\n{example}")
        assert loader.load(path, {})


def test_broken_links_are_found() -> None:
    """A missing file, a missing heading and an unknown anchor of the page itself are reported; code is not read."""
    text = "# One two\n[a](none.md) [b](glossary.md#none) [c](#three) [d](#one-two) [e](https://x.org/a)\n```\n[f](none)\n```\n"
    assert broken_links(ROOT / "docs" / "invariants.md", text) == ["none.md", "glossary.md#none", "#three"]
