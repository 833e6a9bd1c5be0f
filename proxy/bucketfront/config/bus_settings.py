"""The settings of the bus, over which several proxies announce what has become invalid."""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from bucketfront.config.checked_text import CertificateFile, Secret, Text
from bucketfront.config.quantities import Duration
from bucketfront.config.section import Section, SettingError

_PREFIX = re.compile(r"[A-Za-z0-9_.:{}-]{1,64}")


def _bus_url(url: str) -> str:
    wanted = "must be redis://HOST:PORT/DB, rediss://HOST:PORT/DB for TLS, or unix:///PATH?db=DB"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if re.search(r"[\x00-\x20\x7f\\#]", url):
        raise ValueError(wanted)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they belong into bus.username and bus.password")
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.strip("/") or not re.fullmatch(r"(db=[0-9]{1,5})?", parts.query):
            raise ValueError(wanted)
        return url
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.port == 0 or parts.query:
        raise ValueError(wanted)
    if not re.fullmatch(r"/?|/[0-9]{1,5}", unquote(parts.path)):
        raise ValueError(wanted)
    return url


def _prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("must be 1 to 64 letters, digits and any of _ . : - { }")
    return prefix


BusUrl = Annotated[str, "URL", AfterValidator(_bus_url)]
BusPrefix = Annotated[str, "text", AfterValidator(_prefix)]


class BusSettings(Section):
    """The bus of several proxies in front of the same buckets, which needs `pip install 'bucketfront[bus]'`.

    Without the section each proxy is on its own. See [fleet.md](fleet.md#the-bus).
    """

    url: BusUrl = Field(examples=["redis://127.0.0.1:6379/0"])
    """A server of Redis 7 or Valkey 7.2, or a later one: `redis://HOST:PORT/DB`, `rediss://HOST:PORT/DB` for TLS, or
    `unix:///PATH?db=DB`."""
    username: Text | None = None
    """The ACL user. `null` is the default user."""
    password: Secret | None = None
    """The password. `file:/absolute/path` keeps it out of the file, and is read for each connection."""
    ca_bundle: CertificateFile | None = None
    """PEM file with certificates of authorities that are trusted for `rediss`, in place of those of the system."""
    certificate: Path | None = None
    """PEM file with the certificate that this proxy shows to the server, if that asks for one."""
    key: Path | None = None
    """PEM file with the private key of `bus.certificate`."""
    ttl_when_lost: Annotated[Duration, Field(ge=1)] = 10.0
    """How long objects count as fresh at most while the bus is out of reach. It counts from the last time at which all
    changes were known, or from the object's own validation if that is later."""
    keep: Annotated[Duration, Field(ge=60)] = 86400.0
    """How long the stream keeps notices, about. A proxy that was away for longer asks S3 about each object that it has
    before it serves it. Use the same value for all proxies."""
    prefix: BusPrefix = "bucketfront"
    """What the keys of the bus begin with. Proxies of one fleet have the same."""
    node: Text | None = None
    """The name of this proxy for operators. `null` takes the host name with the port of `server`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise SettingError("certificate and key belong together", ("bus", "certificate"), ("bus", "key"))
        if not self.url.startswith("rediss:"):
            for name in ("ca_bundle", "certificate"):
                if getattr(self, name) is not None:
                    raise SettingError("needs a URL that begins with rediss://", ("bus", name), ("bus", "url"))
        return self
