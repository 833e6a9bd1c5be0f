"""The settings of listeners: which go together, and which count as local."""

from typing import Any

import pytest
from pydantic import ValidationError
from rows import each_row

from bucketfront.config.listener_settings import ServerSettings
from bucketfront.config.settings import Settings

UNIX = {"unix": "/run/x.sock"}
PASSED = {"systemd": "clients"}
LOCAL = {"host": "::1", "port": 9000}
PUBLIC = {"host": "192.0.2.1", "port": 9000}
MOUNTS = [{"path": "/", "bucket": "media", "methods": ["GET", "PUT"]}]


def server(*listeners: dict[str, Any], **keys: Any) -> ServerSettings:
    return ServerSettings.model_validate({**keys, "listeners": listeners})


@each_row(
    ("listener", "message"),
    [
        ({}, "exactly one of host, unix, systemd"),
        ({**UNIX, **PASSED}, "and has unix and systemd"),
        ({"host": "::1"}, "needs a port"),
        ({**UNIX, "port": 1}, "has a port, which belongs to host"),
        ({**LOCAL, "mode": "0600", "owner": "me"}, "has mode, owner, which only a Unix socket has"),
        ({**PASSED, "group": "me"}, "has group, which only a Unix socket has"),
        ({**LOCAL, "plain": True, "tls": {"certificate": "a", "key": "b"}}, "leave one of them out"),
        ({"unix": "x.sock"}, "absolute"),
        ({"unix": "/run/"}, "absolute"),
        ({"unix": "/run/../x"}, "absolute"),
        ({"unix": "/run/\0x"}, "absolute"),
        ({"unix": "@abstract"}, "absolute"),
        ({"unix": "/" + 107 * "x"}, "at most 107 bytes"),
        ({"unix": "/" + 54 * "é"}, "at most 107 bytes"),
        ({**UNIX, "mode": "rw"}, "octal"),
        ({**UNIX, "mode": "1777"}, "octal"),
        ({**UNIX, "mode": "0888"}, "octal"),
        ({**UNIX, "owner": "a b"}, "name or the number"),
        ({"systemd": "a:b"}, "without spaces and colons"),
        ({"systemd": ""}, "without spaces and colons"),
    ],
)
def test_a_listener_that_does_not_fit(listener: dict[str, Any], message: str) -> None:
    """I30: a listener has one kind, and only the keys of its kind."""
    with pytest.raises(ValidationError, match=message):
        server(listener)


@each_row("path", ["/" + 106 * "x", "/" + 53 * "é", "/run/a b.sock", "/x"])
def test_paths(path: str) -> None:
    """A path of a Unix socket may have all bytes that the kernel takes."""
    assert server({"unix": path}).listeners[0].unix == path


@each_row(
    ("listeners", "keys"),
    [
        ([UNIX, UNIX], {}),
        ([PASSED, PASSED], {}),
        ([LOCAL, LOCAL], {}),
        ([{"host": "*", "port": 9000}, LOCAL], {}),
        ([{"host": "127.0.0.1", "port": 8080}], {}),
    ],
)
def test_each_has_its_own_place(listeners: list[dict[str, Any]], keys: dict[str, Any]) -> None:
    """I30: two listeners cannot have one place, and the message names the other one."""
    with pytest.raises(ValidationError, match="the same place as server"):
        server(*listeners, **keys)


def test_places_that_differ() -> None:
    """Port 0, another port, and another address are places of their own."""
    server({"host": "::1", "port": 0}, {"host": "::1", "port": 0}, LOCAL, {"host": "127.0.0.1", "port": 9000}, port=0)
    server({"host": "127.0.0.1", "port": 8080}, port=None)


def test_there_is_a_listener() -> None:
    """I30: without a port there must be another listener."""
    with pytest.raises(ValidationError, match="must be a port"):
        server(port=None)
    assert server(UNIX, port=None).port is None


@each_row(
    ("listeners", "host", "port", "is_local"),
    [
        ([], "127.0.0.1", 8080, True),
        ([UNIX, {"unix": "/run/y.sock", "mode": "0666"}, LOCAL], "127.0.0.1", 8080, True),
        ([UNIX], "*", 8080, False),
        ([UNIX], "*", None, True),
        ([UNIX, PUBLIC], "127.0.0.1", 8080, False),
        ([PASSED], "127.0.0.1", None, False),
    ],
)
def test_writes_beyond_loopback(
    listeners: list[dict[str, Any]], host: str, port: int | None, *, is_local: bool
) -> None:
    """I30: a mount that takes writes needs a rule as soon as other machines may reach one listener."""
    tree: dict[str, Any] = {"server": {"host": host, "port": port, "listeners": listeners}, "mounts": MOUNTS}
    if is_local:
        assert Settings.model_validate(tree).server.is_local
        return
    with pytest.raises(ValidationError, match=r"needed, because .*server\.(host|listeners)"):
        Settings.model_validate(tree)


TLS = {"certificate": "a", "key": "b"}


@each_row(
    ("listeners", "keys", "has_only_tls"),
    [
        ([], {}, False),
        ([], {"tls": TLS}, True),
        ([LOCAL], {"tls": TLS}, True),
        ([{**LOCAL, "plain": True}], {"tls": TLS}, False),
        ([{**LOCAL, "tls": TLS}], {}, False),
        ([{**LOCAL, "tls": TLS}], {"port": None}, True),
        ([UNIX], {"tls": TLS}, False),
        ([{**UNIX, "tls": TLS}], {"tls": TLS}, True),
        ([PASSED], {"tls": TLS}, False),
    ],
)
def test_only_tls(listeners: list[dict[str, Any]], keys: dict[str, Any], *, has_only_tls: bool) -> None:
    """I33: pages of the proxy's own may have the scheme http as soon as one listener may be plain."""
    assert server(*listeners, **keys).has_only_tls == has_only_tls


@each_row(
    ("keys", "is_refused"),
    [
        ({"proxy_protocol": True}, True),
        ({"proxy_protocol": True, "trusted_proxies": ["unix"]}, True),
        ({"proxy_protocol": True, "trusted_proxies": ["10.0.0.0/8"]}, False),
        ({"proxy_protocol": True, "port": None, "listeners": [UNIX]}, False),
        ({"listeners": [{**UNIX, "proxy_protocol": True}]}, False),
        ({"listeners": [{**PASSED, "proxy_protocol": True}]}, False),
        ({"listeners": [{**LOCAL, "proxy_protocol": True}]}, True),
        ({"listeners": [{**LOCAL, "proxy_protocol": True}], "trusted_proxies": ["::1"]}, False),
    ],
)
def test_who_may_send_headers(keys: dict[str, Any], *, is_refused: bool) -> None:
    """I30: a listener of TCP that expects PROXY headers needs the networks of its fronts."""
    if is_refused:
        with pytest.raises(ValidationError, match=r"needs server\.trusted_proxies"):
            ServerSettings.model_validate(keys)
    else:
        assert ServerSettings.model_validate(keys)


def test_the_admin_port_is_apart() -> None:
    """I27: the admin port is that of no listener for clients."""
    with pytest.raises(ValidationError, match=r"another port than server\.listeners\[0\]\.port"):
        Settings.model_validate(
            {"server": {"listeners": [{"host": "127.0.0.1", "port": 8081}]}, "mounts": [{"path": "/", "bucket": "b-1"}]}
        )


def test_fronts() -> None:
    """`unix` stands beside the networks of fronts."""
    found = ServerSettings(trusted_proxies=("10.0.0.0/8", "unix"))
    assert found.front_networks == ("10.0.0.0/8",)
    with pytest.raises(ValidationError, match="an address or a network"):
        ServerSettings(trusted_proxies=("unix:",))
