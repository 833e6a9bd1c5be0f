"""The settings of the bus: what is refused, and with which words."""

from importlib import machinery
from pathlib import Path

import pytest
from pydantic import ValidationError
from rows import each_row

from bucketfront.config.bus_settings import BusSettings
from bucketfront.errors import UnusableSetting
from bucketfront.fleet import assembly


@each_row(
    "url",
    [
        "redis://127.0.0.1:6379/0", "redis://bus", "redis://bus/", "rediss://bus.internal:6380/15", "redis://[::1]:6379/1",
        "unix:///run/redis.sock", "unix:///run/redis.sock?db=2",
    ],
)  # fmt: skip
def test_urls(url: str) -> None:
    assert BusSettings(url=url).url == url


@each_row(
    "url",
    [
        "", "bus:6379", "http://bus:6379", "redis://", "redis://bus:0", "redis://bus:99999", "redis://bus/name",
        "redis://bus/0?ssl_cert_reqs=none", "redis://bus/0#x", "redis://b us", "unix://bus/sock", "unix:///", "unix:///s?x=1",
        "redis://bus\\x/0",
    ],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="redis://HOST"):
        BusSettings(url=url)


def test_a_password_has_a_key_of_its_own() -> None:
    """A password in the URL is refused, and the message does not have it."""
    with pytest.raises(ValidationError) as raised:
        BusSettings(url="redis://user:hunter2@bus:6379/0")
    assert "bus.password" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@each_row(
    ("url", "keys", "reason"),
    [
        ("rediss://bus", {"certificate": "/c"}, "belong together"),
        ("rediss://bus", {"key": "/k"}, "belong together"),
        ("redis://bus", {"certificate": "/c", "key": "/k"}, "rediss://"),
        ("redis://bus", {"ttl_when_lost": "500ms"}, "greater than or equal to 1"),
        ("redis://bus", {"keep": "10s"}, "greater than or equal to 60"),
        ("redis://bus", {"prefix": "a b"}, "letters"),
    ],
)
def test_settings_that_do_not_fit(url: str, keys: dict[str, str], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        BusSettings.model_validate({"url": url, **keys})


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the client, the start names what to install, and the place of the setting."""

    def find_spec(name: str) -> machinery.ModuleSpec | None:
        assert name == "redis"
        return None

    monkeypatch.setattr(assembly, "find_spec", find_spec)
    with pytest.raises(UnusableSetting, match=r"bucketfront\[bus\]") as raised:
        assembly.connect(BusSettings(url=f"unix://{tmp_path}/s"))
    assert raised.value.at == ("bus",)
