"""Warnings about a configuration that is permitted and probably not meant, at the start and in `check`."""

import os
import stat
from pathlib import Path

import pytest
import yaml
from command_line import invoke
from held_port import held_port
from rows import each_row

from bucketfront.config.loader import load_with_places

TOKEN = "a-token-of-enough-characters"
RULES = f"""\
access:
  team: {{bearer: {{tokens: ["{TOKEN}"]}}}}
  staff: {{basic: {{file: htpasswd}}}}
  lan: {{networks: [10.0.0.0/8]}}
"""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def warnings_of(text: str, mode: int = 0o600) -> list[str]:
    path = Path("proxy.yaml")
    path.write_text(text)
    path.chmod(mode)
    return load_with_places(path, {}).warnings


@each_row(
    ("first", "second", "keys"),
    [
        ("read: [lan]", "read: [lan]", []),
        ("read: [lan]", "", ["read"]),
        ("read: [lan, team]", "read: [team, lan]", []),
        ("read: [lan, public]", "read: [public]", []),
        ("read: [lan]", "read: [lan], prefix: a/", []),
        ("methods: [GET, PUT], write: [team]", "methods: [GET, PUT], write: [lan]", ["write"]),
        ("methods: [GET, PUT], write: [public]", "methods: [GET, PUT]", []),
        ("methods: [GET, PUT], write: [team]", "methods: [GET]", []),
        ("read: [lan], methods: [GET, PUT], write: [team]", "methods: [GET, PUT]", ["read", "write"]),
    ],
)
def test_two_mounts_of_the_same_objects(first: str, second: str, keys: list[str]) -> None:
    """Two mounts with the same bucket and prefix have the same rules, or a warning names both (I32)."""
    found = warnings_of(
        f"{RULES}mounts:\n  - {{path: /, bucket: media, {first}}}\n  - {{path: /b/, bucket: media, {second}}}\n"
    )
    assert [text.split(": ")[0].split()[-1] for text in found] == [f"mounts[1].{key}" for key in keys]
    assert all("is not that of mounts[0], which has the same objects" in text for text in found)


TLS = "tls: {certificate: c.pem, key: k.pem}"


@each_row(
    ("server", "count"),
    [
        ("", 0),
        ("host: 127.0.0.1", 0),
        ("host: 0.0.0.0", 2),
        ("host: '*'", 2),
        (f"host: 0.0.0.0, {TLS}", 0),
        ("listeners: [{host: 0.0.0.0, port: 81}]", 2),
        (f"listeners: [{{host: 0.0.0.0, port: 81}}], {TLS}", 0),
        (f"listeners: [{{host: 0.0.0.0, port: 81, plain: true}}], {TLS}", 2),
        (f"listeners: [{{host: 0.0.0.0, port: 81, {TLS}}}]", 0),
        ("listeners: [{unix: /run/x.sock}]", 0),
        ("host: 0.0.0.0, port: null, listeners: [{unix: /run/x.sock}]", 0),
    ],
)
def test_credentials_in_plain_text(server: str, count: int) -> None:
    """Passwords and tokens on a listener beyond loopback without TLS are warned of. Rules without use are not (I28)."""
    found = warnings_of(
        f"{RULES}  spare: {{bearer: {{tokens: [{TOKEN}]}}}}\nserver: {{{server}}}\n"
        "mounts: [{path: /, bucket: media, read: [team, staff, lan]}]\n"
    )
    assert len(found) == count
    if count:
        assert "access.team.bearer: tokens cross the network in plain text" in found[0]
        assert "access.staff.basic: passwords cross the network in plain text" in found[1]


@each_row(
    ("server", "has_effect"),
    [
        (TLS, True),
        (f"port: null, listeners: [{{unix: /run/x.sock}}], {TLS}", False),
        (f"port: null, listeners: [{{host: 127.0.0.1, port: 81, plain: true}}], {TLS}", False),
        (f"port: null, listeners: [{{host: 127.0.0.1, port: 81, {TLS}}}], {TLS}", False),
        (f"port: null, listeners: [{{unix: /run/x.sock}}, {{host: 127.0.0.1, port: 81}}], {TLS}", True),
        (f"port: null, listeners: [{{systemd: clients}}], {TLS}", True),
        ("port: null, listeners: [{unix: /run/x.sock}]", True),
    ],
)
def test_tls_of_no_listener(server: str, has_effect: bool) -> None:
    """`server.tls` is warned of if no listener takes it, because clients would get plain HTTP."""
    found = warnings_of(f"server: {{{server}}}\nmounts: [{{path: /, bucket: media}}]\n")
    assert ["server.tls: has no effect" in text for text in found] == ([] if has_effect else [True])


def write(name: str, text: str, mode: int) -> None:
    Path(name).write_text(text)
    Path(name).chmod(mode)


@pytest.mark.parametrize(("mode", "who"), [(0o600, ""), (0o400, ""), (0o640, "its group"), (0o644, "all users")])
def test_files_with_secrets_that_others_may_read(tmp_path: Path, mode: int, who: str) -> None:
    """Each file with a secret has one warning with the cure if others may read it (I28)."""
    for name in ("token", "admin", "sign", "key", "second", "third", "secret"):
        write(name, "0123456789abcdef" * 4, mode)
    write("htpasswd", "ann:$2y$05$x\n", mode)
    found = warnings_of(
        f"""\
access:
  team: {{bearer: {{tokens: ["file:{tmp_path}/token"]}}}}
  staff: {{basic: {{file: {tmp_path}/htpasswd}}}}
  links: {{signed_url: {{keys: {{k1: "file:{tmp_path}/sign"}}}}}}
admin: {{token: "file:{tmp_path}/admin", tls: {{certificate: c.pem, key: {tmp_path}/third}}}}
server:
  tls: {{certificate: c.pem, key: {tmp_path}/key, certificates: [{{certificate: d.pem, key: {tmp_path}/second}}]}}
origin: {{credentials: {{access_key_id: id, secret_access_key: "file:{tmp_path}/secret"}}}}
mounts: [{{path: /, bucket: media, read: [team, staff, links]}}]
"""
    )
    assert len(found) == (8 if who else 0)
    for text in found:
        assert f": {who} of this machine may read it (mode {mode:04o}): chmod 600 {tmp_path}/" in text
    if who:
        names = {"token", "admin", "sign", "key", "second", "third", "secret", "htpasswd"}
        assert {text.rpartition("/")[2] for text in found} == names


@pytest.mark.parametrize(
    ("admin", "mode", "count"),
    [
        (TOKEN, 0o644, 1),
        (TOKEN, 0o640, 1),
        (TOKEN, 0o600, 0),
        ("'${ADMIN}'", 0o644, 0),
        ("null", 0o644, 0),
    ],
)
def test_secrets_in_the_configuration_itself(
    monkeypatch: pytest.MonkeyPatch, admin: str, mode: int, count: int
) -> None:
    """A configuration file with secrets in it is warned of as well, unless they come from the environment (I28)."""
    path = Path("proxy.yaml")
    write("proxy.yaml", f"admin: {{token: {admin}}}\nmounts: [{{path: /, bucket: media}}]\n", mode)
    monkeypatch.setenv("ADMIN", TOKEN)
    found = load_with_places(path, os.environ).warnings
    assert len(found) == count
    assert all("has secrets, and" in text and text.endswith("chmod 600 proxy.yaml") for text in found)
    assert TOKEN not in str(found)


def test_a_hash_is_no_secret() -> None:
    """A token that only its hash stands for needs no private file."""
    hashed = f"sha256:{'0' * 64}"
    rules = f"access: {{team: {{bearer: {{tokens: ['{hashed}']}}}}}}\n"
    assert warnings_of(f"{rules}mounts: [{{path: /, bucket: media, read: [team]}}]\n", 0o644) == []


def test_check_prints_each_warning_once(tmp_path: Path) -> None:
    """`bucketfront check` has a line for each warning, with the cure, also while the origin is unreachable."""
    with held_port() as port:
        settings = {
            "server": {"port": 0},
            "admin": {"port": 0, "token": TOKEN},
            "origin": {"endpoint_url": f"http://127.0.0.1:{port}"},
            "mounts": [{"path": "/", "bucket": "media"}],
            "cache": {"dir": str(tmp_path / "cache")},
        }
        write("proxy.yaml", yaml.safe_dump(settings), 0o644)
        ran = invoke("check")
    assert ran.stdout.count("chmod 600 proxy.yaml") == 1
    assert [line for line in ran.stdout.splitlines() if line.startswith("WARN configuration")] != []
    assert TOKEN not in ran.stdout + ran.stderr
    assert stat.S_IMODE(Path("proxy.yaml").stat().st_mode) == 0o644
