"""`bucketfront config`: the settings in force with their sources, and the schema of the file."""

import json
import re
from pathlib import Path

import pytest
from command_line import invoke
from rows import each_row

from bucketfront.config.effective import MASK
from bucketfront.config.loader import load

ROOT = Path(__file__).parent.parent
SECRETS = """\
origin:
  credentials: {access_key_id: AKIAINTHEFILE, secret_access_key: "file:SECRET"}
  region: "${PLACE}"
admin: {token: the-token-in-the-file}
access:
  team: {bearer: {tokens: [a-token-of-sixteen-chars, "file:SECRET"]}}
  links: {signed_url: {keys: {k1: a-key-of-sixteen-chars}}}
  app: {forward: {url: "http://127.0.0.1:3000/may?key=in-the-query"}}
mounts:
  - {path: /, bucket: media, methods: [GET, PUT]}
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let each test run where a new user runs: in a folder without any file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_config_show_masks_secrets(empty_folder: Path) -> None:
    """I28: no form of `config show` prints a secret; that of a file shows as its path."""
    secret = empty_folder / "secret"
    secret.write_text("the-secret-of-the-file")
    Path("proxy.yaml").write_text(SECRETS.replace("SECRET", str(secret)))
    variables = {"PLACE": "eu-west-1", "BUCKETFRONT_ADMIN__TOKEN": "the-token-of-a-variable"}
    for options in ((), ("--sources",), ("--json",), ("--sources", "--json")):
        shown = invoke("config", "show", *options, **variables)
        assert shown.exit_code == 0, shown.stderr
        for text in ("AKIA", "the-secret", "the-token", "a-token", "a-key", "in-the-query"):
            assert text not in shown.output, options
        assert MASK in shown.output
        assert f"file:{secret}" in shown.output
        assert "eu-west-1" in shown.output


def test_config_show_names_each_source() -> None:
    """Each setting has the source that counts: option over variable over file over default."""
    Path("proxy.yaml").write_text(
        "mounts:\n  - path: /a\n    bucket: of-file\ncache:\n  max_size: 1GiB\n  idle_timeout: 2h\n"
        "server: {port: 1, host: 127.0.0.2}\ncors: {allow_origins: [https://a.example, https://b.example]}\n"
    )
    variables = {
        "BUCKETFRONT_CACHE__MAX_SIZE": "2GiB",
        "BUCKETFRONT_SERVER__PORT": "2",
        "BUCKETFRONT_CORS__ALLOW_ORIGINS__1": "https://c.example",
    }
    shown = json.loads(invoke("config", "show", "--sources", "--json", "--port", "3", **variables).stdout)
    found = {row["key"]: (row["value"], row["source"], row["place"]) for row in shown["settings"]}
    assert found["mounts[0].path"] == ("/a/", "file", "proxy.yaml:2:11")
    assert found["mounts[0].prefix"] == ("", "default", None)
    assert found["cache.max_size"] == ("2GiB", "variable", "BUCKETFRONT_CACHE__MAX_SIZE")
    assert found["cache.idle_timeout"] == ("2h", "file", "proxy.yaml:6:17")
    assert found["server.port"] == (3, "option", "--port")
    assert found["server.host"] == ("127.0.0.2", "file", "proxy.yaml:7:25")
    origins = found["cors.allow_origins"]
    assert origins == (["https://a.example", "https://c.example"], "variable", "BUCKETFRONT_CORS__ALLOW_ORIGINS__1")
    text = invoke("config", "show", "--sources", "--port", "3", **variables).stdout
    assert re.search(r"^  port: 3 +# --port$", text, re.MULTILINE)
    assert re.search(r"^  - path: /a/ +# proxy\.yaml:2:11$", text, re.MULTILINE)


def test_config_show_is_a_configuration(empty_folder: Path) -> None:
    """What `config show` prints loads as the same settings, with and without sources and as JSON."""
    own = ROOT / "proxy.yaml"
    for options in ((), ("--sources",), ("--json",)):
        shown = invoke("config", "show", *options, "-c", own)
        Path("shown.yaml").write_text(shown.stdout)
        assert load(Path("shown.yaml"), {}) == load(own, {})


def test_schema_describes_each_key() -> None:
    """Each key of each section has its text for editors, and the defaults are written as in a file."""
    schema = json.loads(invoke("config", "schema").stdout)
    sections = [schema, *schema["$defs"].values()]
    keys = [key for section in sections for key in section["properties"].items()]
    assert len(keys) > 100
    assert [
        name
        for section in schema["$defs"].values()
        for name, key in section["properties"].items()
        if "description" not in key
    ] == []
    assert all(section["additionalProperties"] is False for section in sections)
    cache = schema["$defs"]["CacheSettings"]["properties"]
    assert (cache["max_size"]["default"], cache["idle_timeout"]["default"]) == ("10GiB", "1h")
    assert "mounts" in schema["required"]


@each_row(
    ("section", "key", "good", "bad"),
    [
        ("CacheSettings", "max_size", ("10GiB", "1.5MB", "512", "${SIZE}"), ("10 gigs", "10Gi", "-1")),
        ("CacheSettings", "idle_timeout", ("90s", "250ms", "1.5d", "0", "${TIME}"), ("90", "1 hour", "soon")),
        ("CacheSettings", "min_free", ("5%", "1GiB", "${SHARE}"), ("5 %", "half")),
        ("ServerSettings", "client_share", ("25%",), ("25",)),
    ],
)
def test_schema_knows_quantities(section: str, key: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    """The patterns of the schema take what the loader takes, with `${VAR}`, and mark what it refuses."""
    node = json.loads(invoke("config", "schema").stdout)["$defs"][section]["properties"][key]
    pattern = next(branch["pattern"] for branch in [node, *node.get("anyOf", ())] if "pattern" in branch)
    assert all(re.search(pattern, text) for text in good)
    assert not any(re.search(pattern, text) for text in bad)


def test_schema_has_bounds() -> None:
    """Numbers have their bounds in the schema, under the names of JSON Schema."""
    found = json.loads(invoke("config", "schema").stdout)["$defs"]["AdminSettings"]["properties"]["port"]
    assert found["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 65535}
