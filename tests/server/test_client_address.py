"""The client's address behind fronts, as a pure function of the peer and two fields."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.config.listen_host import UNIX_PEER
from bucketfront.server.client_address import ClientAddresses

FRONT, CLIENT, OTHER = "10.0.0.1", "192.0.2.7", "198.51.100.9"
BEHIND = ClientAddresses(["10.0.0.0/8", "fd00::/8"])

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


def found(peer: str | None = FRONT, **fields: str) -> str | None:
    """Return the address for a request with these fields, named with `_` in place of `-`."""
    address = BEHIND.of(peer, {name.replace("_", "-"): value for name, value in fields.items()}.get)
    return None if address is None else str(address)


@each_row(
    ("value", "client"),
    [
        (CLIENT, CLIENT),
        (f"{OTHER}, {CLIENT}", CLIENT),
        (f"{OTHER},{CLIENT} , 10.9.9.9", CLIENT),
        ("10.0.0.5, 10.0.0.6", "10.0.0.5"),
        (f"{CLIENT}:4711", CLIENT),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.5, fd00::2", "10.0.0.5"),
        (f"{CLIENT}, unknown", None),
        (f"{CLIENT}, ", None),
        ("", None),
        (", ".join([CLIENT, *["10.0.0.1"] * 40]), FRONT),
    ],
)
def test_x_forwarded_for(value: str, client: str | None) -> None:
    """The last address that is not a front's is the client. What stands before it counts for nothing."""
    assert found(x_forwarded_for=value) == client


@each_row(
    ("value", "client"),
    [
        (f"for={CLIENT}", CLIENT),
        (f'for={OTHER};proto=http, For="{CLIENT}:80";by=10.0.0.1', CLIENT),
        ('proto=https;for="[2001:db8::1]:4711"', "2001:db8::1"),
        (f"for={CLIENT}, for=_hidden", None),
        (f'host="a;for=10.0.0.5";for={CLIENT}', CLIENT),
        (f'host="a, for=10.0.0.5";for={CLIENT}', CLIENT),
        (f'by=10.0.0.1;host="h;for=10.0.0.5";proto=http;for="{CLIENT}"', CLIENT),
        (f"for={CLIENT};for={OTHER}", None),
        (f'for={CLIENT};host="open', None),
        (f"for={CLIENT}, by=10.0.0.1", None),
        ("", None),
    ],
)
def test_forwarded(value: str, client: str | None) -> None:
    """The same holds for Forwarded, whose hops are elements with parameters (RFC 7239)."""
    assert found(forwarded=value) == client


def test_fields_that_disagree() -> None:
    """A client cannot name itself in the field that its front does not set: it is unknown then."""
    assert found(x_forwarded_for=CLIENT, forwarded=f"for={OTHER}") is None
    assert found(x_forwarded_for=CLIENT, forwarded="nonsense") is None
    assert found(x_forwarded_for=CLIENT, forwarded=f"for={CLIENT}") == CLIENT


@pytest.mark.parametrize("peer", [FRONT, UNIX_PEER])
def test_a_client_that_hides(peer: str) -> None:
    """A client that a front's fields make unknown is told from a front that names none (I34)."""
    addresses = ClientAddresses(["10.0.0.0/8", "unix"])
    both = {"x-forwarded-for": CLIENT, "forwarded": f"for={OTHER}"}
    assert addresses.hides(peer, both.get)
    assert addresses.hides(peer, {"x-forwarded-for": "unknown"}.get)
    assert not addresses.hides(peer, {"x-forwarded-for": CLIENT}.get)
    assert not addresses.hides(peer, lambda _: None)
    assert not ClientAddresses(["192.0.2.0/24"]).hides(peer, both.get)


@given(x_forwarded_for=texts, forwarded=texts)
def test_peers_that_are_not_trusted(x_forwarded_for: str, forwarded: str) -> None:
    """Whatever the fields are, they do not count from a peer that is not trusted, and no text raises an error."""
    fields = {"x_forwarded_for": x_forwarded_for, "forwarded": forwarded}
    for peer in (CLIENT, "2001:db8::1"):
        assert found(peer, **fields) == peer
    assert found(None, **fields) is None
    assert found("", **fields) is None
    named = found(**fields)
    assert named is None or ipaddress.ip_address(named)
    assert ClientAddresses([]).of(FRONT, fields.get) == ipaddress.ip_address(FRONT)
