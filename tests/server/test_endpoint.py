"""The endpoint that the SDK resolves is a part of the cache key: from settings, variables and the profile."""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from proxy_under_test import S3, Proxy, WallClock, settings_of, until
from relay import Relay
from tus_client import TUS, created
from wire import fetch

from bucketfront.app import App
from bucketfront.checks import run_checks
from bucketfront.cli import serve as cli_serve
from bucketfront.config.origin_settings import OriginSettings
from bucketfront.errors import OriginError
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin

BODY = b"of this endpoint"
HERE, THERE = "HERE", "THERE"  # in a table: the URLs of the two relays
KEYS = {"access_key_id": "any", "secret_access_key": "any-secret"}


@dataclass(frozen=True, slots=True)
class Given:
    """What decides about the endpoint."""

    variables: Mapping[str, str] | None = None
    profile: str = ""  # the shared configuration file
    origin: Mapping[str, Any] | None = None  # settings


SERVICES = "[default]\nservices = mine\n[services mine]\ns3 =\n  endpoint_url = {}\n"
ACCELERATED = "[default]\ns3 =\n  use_accelerate_endpoint = true\n"
FIPS = {"AWS_USE_FIPS_ENDPOINT": "true"}
DUALSTACK = {"AWS_USE_DUALSTACK_ENDPOINT": "true"}
VARIABLE = Given({"AWS_ENDPOINT_URL": HERE})
SETTING = Given(origin={"endpoint_url": HERE})


class Place:
    """Two endpoints of one S3, a cache folder, and an environment without variables and files of AWS."""

    def __init__(self, folder: Path, s3: S3, here: Relay, there: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.s3, self.here, self.there = folder, s3, here, there
        self._monkeypatch = monkeypatch

    def app(self, given: Given) -> App:
        """Return an App of these settings, in the environment that `given` describes."""
        self.set_environment(given)
        origin = {"endpoint_url": None, **(given.origin or {})}
        origin = {name: self._url(value) if isinstance(value, str) else value for name, value in origin.items()}
        return App(settings_of(self.folder, self.here.url, self.s3.bucket, origin=origin))

    def set_environment(self, given: Given) -> None:
        for name in ("ENDPOINT_URL", "ENDPOINT_URL_S3", "IGNORE_CONFIGURED_ENDPOINT_URLS", "PROFILE"):
            self._monkeypatch.delenv(f"AWS_{name}", raising=False)
        for name in (*FIPS, *DUALSTACK):
            self._monkeypatch.delenv(name, raising=False)
        file = self.folder / "aws-config"
        file.write_text(self._url(given.profile))
        self._monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
        self._monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(self.folder / "aws-credentials"))
        for name, value in (given.variables or {}).items():
            self._monkeypatch.setenv(name, self._url(value))

    def _url(self, text: str) -> str:
        return text.replace(THERE, self.there.url).replace(HERE, self.here.url)

    def rename(self, name: str) -> None:
        """Make the cache one that was filled under an origin of this name."""
        with closing(sqlite3.connect(self.folder / "cache" / "index.db")) as index, index:
            assert index.execute("UPDATE entries SET origin = ?", (name,)).rowcount == 1

    def names(self) -> set[str]:
        with closing(sqlite3.connect(self.folder / "cache" / "index.db")) as index:
            return {name for (name,) in index.execute("SELECT origin FROM entries")}


@pytest.fixture
async def place(
    tmp_path: Path, s3: S3, relay: Relay, origin_server: OriginSettings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    assert origin_server.endpoint_url is not None
    there = Relay(origin_server.endpoint_url)
    await there.start()
    s3.put("o", BODY)
    yield Place(tmp_path, s3, relay, there, monkeypatch)
    await there.close()


async def filled(place: Place, given: Given) -> None:
    async with place.app(given) as app:
        assert (await fetch(app.address, "/o")).body == BODY


async def is_warm(place: Place, given: Given) -> bool:
    """Return whether a proxy in this environment has the object. It sends no request to find out."""
    async with place.app(given) as app:
        response = await fetch(app.address, "/o", headers={"Cache-Control": "only-if-cached"})
    assert response.status in (200, 504)
    return response.status == 200


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (VARIABLE, Given({"AWS_ENDPOINT_URL": THERE})),
        (VARIABLE, Given({"AWS_ENDPOINT_URL": HERE, "AWS_ENDPOINT_URL_S3": THERE})),
        (Given({"AWS_ENDPOINT_URL_S3": HERE}), Given({"AWS_ENDPOINT_URL_S3": THERE})),
        (SETTING, Given({"AWS_ENDPOINT_URL": THERE})),
        (VARIABLE, Given(origin={"endpoint_url": THERE})),
        (VARIABLE, Given(profile=f"[default]\nendpoint_url = {THERE}\n")),
        (Given(profile=f"[default]\nendpoint_url = {HERE}\n"), Given(profile=f"[default]\nendpoint_url = {THERE}\n")),
        (Given(profile=SERVICES.format(HERE)), Given(profile=SERVICES.format(THERE))),
        (Given(profile=SERVICES.format(HERE)), Given(profile=f"[default]\nendpoint_url = {THERE}\n")),
    ],
)
async def test_another_endpoint_is_another_cache(place: Place, first: Given, second: Given) -> None:
    """An object of one endpoint is not served under another, whichever variable or file names it (I25)."""
    await filled(place, first)
    place.here.reset()
    async with place.app(second) as app:
        assert (await fetch(app.address, "/o")).body == BODY
    assert place.there.body_bytes == len(BODY)
    assert place.here.seen == []
    assert await is_warm(place, first)  # the entries of the first are still there


@pytest.mark.parametrize(
    "second",
    [
        Given(),
        Given({"AWS_ENDPOINT_URL": HERE, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}),
        Given(profile=f"[default]\nendpoint_url = {HERE}\nignore_configured_endpoint_urls = true\n"),
        Given(FIPS),
        Given({"AWS_ENDPOINT_URL": HERE}, origin={"region": "eu-west-1"}),
        Given({"AWS_ENDPOINT_URL": f"{HERE}/tenant"}),
    ],
)
async def test_the_endpoint_changes_to_one_that_is_not_called(place: Place, second: Given) -> None:
    """A setting that ignores the endpoint's URL, another region and another path are other origins (I25)."""
    await filled(place, VARIABLE)
    assert not await is_warm(place, second)
    assert await is_warm(place, VARIABLE)


@pytest.mark.parametrize(
    "second",
    [
        Given(FIPS),
        Given(DUALSTACK),
        Given(FIPS | DUALSTACK),
        Given(profile="[default]\nuse_fips_endpoint = true\n"),
        Given(profile="[default]\nuse_dualstack_endpoint = true\n"),
        Given(profile="[default]\ns3 =\n  use_dualstack_endpoint = true\n"),
        Given(origin={"region": "eu-west-1"}),
        VARIABLE,
    ],
)
async def test_plain_aws_and_its_variants(place: Place, second: Given) -> None:
    """A cache of plain AWS is not served under FIPS, dual-stack, another region or another URL (I25)."""
    await filled(place, SETTING)
    place.rename("aws:us-east-1")
    assert not await is_warm(place, second)
    assert await is_warm(place, Given())


@pytest.mark.parametrize(
    "second",
    [
        SETTING,
        Given({"AWS_ENDPOINT_URL": f"{HERE}/"}),
        Given({"AWS_ENDPOINT_URL": THERE, "AWS_ENDPOINT_URL_S3": HERE}),
        Given({"AWS_ENDPOINT_URL": HERE, **FIPS, **DUALSTACK}),  # a URL overrules both
        Given(profile=f"[default]\nendpoint_url = {HERE}\n"),
        Given(profile=SERVICES.format(f"{HERE}/")),
        Given({"AWS_PROFILE": "p"}, profile=f"[profile p]\nendpoint_url = {HERE}\n"),
        Given(
            profile=f"[profile p]\nendpoint_url = {HERE}\n[default]\nendpoint_url = {THERE}\n",
            origin={"credentials": {"profile": "p"}},
        ),
    ],
)
async def test_one_endpoint_in_other_words(place: Place, second: Given) -> None:
    """The same endpoint has the same cache, wherever its URL comes from and with a slash at its end or not (I25)."""
    await filled(place, VARIABLE)
    assert place.names() == {place.here.url}
    if second.origin and "credentials" in second.origin:
        (place.folder / "aws-credentials").write_text("[p]\naws_access_key_id = any\naws_secret_access_key = any\n")
    place.here.reset()
    assert await is_warm(place, second)
    assert place.here.seen == []


async def test_a_cache_of_the_setting_stays_valid(place: Place) -> None:
    """The name of `origin.endpoint_url` is its text, whatever the environment has beside it (I25)."""
    odd = place.here.url.replace("http:", "HTTP:")
    await filled(place, Given(origin={"endpoint_url": odd}))
    assert place.names() == {odd}
    noise = {"AWS_ENDPOINT_URL": THERE, **FIPS, **DUALSTACK}
    assert await is_warm(place, Given(noise, origin={"endpoint_url": odd, "region": "eu-west-1"}))


async def test_multipart_uploads_of_another_endpoint(place: Place) -> None:
    """Multipart uploads that a kill left behind are aborted at the endpoint that began them alone (I25)."""
    half = place.s3.client.create_multipart_upload(Bucket=place.s3.bucket, Key="half")
    async with place.app(VARIABLE) as app:
        await app.upload_journal.add(ObjectKey(place.s3.bucket, "half"), half["UploadId"])
    async with place.app(Given({"AWS_ENDPOINT_URL": THERE})) as app:
        assert app.upload_journal.abandoned == []
    assert place.s3.unfinished == 1
    async with place.app(SETTING):
        await until(lambda: not place.s3.unfinished)


async def test_resumable_uploads_of_another_endpoint(place: Place, clock: WallClock) -> None:
    """A resumable upload continues at the endpoint that it began with, and at no other (I25)."""
    async with place.app(VARIABLE) as app:
        url = await created(Proxy(app, place.here, clock), 5)
    target = urlsplit(url).path
    for given, status in ((SETTING, 200), (Given({"AWS_ENDPOINT_URL": THERE}), 404), (SETTING, 404)):
        async with place.app(given) as app:
            assert (await fetch(app.address, target, method="HEAD", headers=TUS)).status == status


async def resolved(place: Place, given: Given) -> tuple[str, str]:
    """Return the text and the name of the endpoint."""
    place.set_environment(given)
    settings = OriginSettings.model_validate({"credentials": KEYS, **(given.origin or {})})
    async with S3Origin(settings) as origin:
        return str(origin.endpoint), origin.endpoint.name


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "s3.amazonaws.com"),
        ("aws-global", "s3.amazonaws.com"),
        ("eu-west-1", "s3.eu-west-1.amazonaws.com"),
        ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "s3.us-gov-west-1.amazonaws.com"),
        ("us-iso-east-1", "s3.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", "s3.us-isob-east-1.sc2s.sgov.gov"),
        ("eu-isoe-west-1", "s3.eu-isoe-west-1.cloud.adc-e.uk"),
        ("us-isof-south-1", "s3.us-isof-south-1.csp.hci.ic.gov"),
        ("eusc-de-east-1", "s3.eusc-de-east-1.amazonaws.eu"),
        ("xx-new-7", "s3.xx-new-7.amazonaws.com"),
    ],
)
async def test_names_of_plain_aws(place: Place, region: str, host: str) -> None:
    """Plain AWS is named by its region in every partition, as caches of earlier releases are (I25)."""
    for given in (
        Given(origin={"region": region}),
        Given(origin={"region": region, "addressing_style": "virtual"}),
        Given(origin={"region": region, "addressing_style": "path"}),
        Given({"AWS_ENDPOINT_URL": f"HTTPS://{host.upper()}:443/"}, origin={"region": region}),
        Given({"AWS_REGION": "eu-west-3"}, "[default]\nregion = eu-west-2\n", origin={"region": region}),
    ):
        assert await resolved(place, given) == (f"https://{host}, region {region}", f"aws:{region}")


@pytest.mark.parametrize(
    ("given", "url", "name"),
    [
        (Given(FIPS), "https://s3-fips.us-east-1.amazonaws.com", None),
        (Given(DUALSTACK), "https://s3.dualstack.us-east-1.amazonaws.com", None),
        (Given(FIPS | DUALSTACK), "https://s3-fips.dualstack.us-east-1.amazonaws.com", None),
        (Given(origin={"region": "fips-us-east-1"}), "https://s3-fips.us-east-1.amazonaws.com", "aws:fips-us-east-1"),
        (
            Given(profile="[default]\ns3 =\n  us_east_1_regional_endpoint = regional\n"),
            "https://s3.us-east-1.amazonaws.com",
            "aws:us-east-1",
        ),
        (Given(profile=ACCELERATED), "https://s3.amazonaws.com", "aws:us-east-1"),
        (Given({"AWS_ENDPOINT_URL": "http://s3.amazonaws.com"}), "http://s3.amazonaws.com", None),
        (Given({"AWS_ENDPOINT_URL": "HTTPS://Host.Example:443/"}), "https://host.example", None),
        (Given({"AWS_ENDPOINT_URL": "http://host.example:443"}), "http://host.example:443", None),
        (Given({"AWS_ENDPOINT_URL": "http://host.example:80/Path/"}), "http://host.example/Path", None),
        (Given({"AWS_ENDPOINT_URL": "http://[0:0::1]:80/"}), "http://[::1]", None),
        (Given({"AWS_ENDPOINT_URL": "https://[2001:DB8::A]:9000"}), "https://[2001:db8::a]:9000", None),
        (Given({"AWS_ENDPOINT_URL": ""}), "https://s3.amazonaws.com", "aws:us-east-1"),
    ],
)
async def test_names_of_other_endpoints(place: Place, given: Given, url: str, name: str | None) -> None:
    """An endpoint that the settings do not state is named by its URL in one form (I25)."""
    assert await resolved(place, given) == (f"{url}, region us-east-1", name or url)


async def test_the_name_has_the_region(place: Place) -> None:
    """A region other than the default one is a part of the name (I25)."""
    given = Given({"AWS_ENDPOINT_URL": "http://host.example"}, origin={"region": "eu-west-1"})
    assert (await resolved(place, given))[1] == "http://host.example eu-west-1"


async def test_check_shows_the_endpoint(place: Place) -> None:
    """`check` reports the endpoint and region that the SDK resolves, and no credentials (I28)."""
    app = place.app(Given({"AWS_ENDPOINT_URL": f"{THERE}/"}, origin={"region": "eu-west-1"}))
    results = await run_checks(app.settings)
    (found,) = [result for result in results if result.subject == "origin"]
    assert (found.is_fine, found.message) == (True, f"{place.there.url}, region eu-west-1")
    assert all(result.is_fine for result in results)


async def test_the_start_shows_the_endpoint(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The start prints the endpoint and region that the SDK resolves."""
    async with place.app(VARIABLE) as app:
        cli_serve._announce(app)
    assert f"  origin   {place.here.url}, region us-east-1\n" in capsys.readouterr().err


async def test_an_endpoint_with_credentials(place: Place) -> None:
    """A URL of the environment that holds credentials is refused at the start, and they are not shown (I28, I30)."""
    given = Given({"AWS_ENDPOINT_URL": "http://user:hidden@host.example"})
    with pytest.raises(OriginError, match=r"must not hold credentials") as raised:
        await resolved(place, given)
    assert "hidden" not in str(raised.value)
    results = await run_checks(place.app(given).settings)
    assert [result.message for result in results if not result.is_fine] == [str(raised.value)]


@pytest.mark.parametrize(
    "bucket",
    [
        "arn:aws:s3::123456789012:accesspoint/mine.mrap",
        "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01234567890123456/accesspoint/mine",
    ],
)
@pytest.mark.parametrize("given", [VARIABLE, SETTING])
async def test_no_request_leaves_a_custom_endpoint(place: Place, given: Given, bucket: str) -> None:
    """With a custom endpoint no request goes to AWS, also not for a bucket's ARN (I29)."""
    async with place.app(given) as app:
        assert app.origin.endpoint.is_custom
        for call in (app.origin.head(ObjectKey(bucket, "o")), app.origin.delete(ObjectKey(bucket, "o"))):
            with pytest.raises(OriginError, match="another host"):
                await call


@pytest.mark.parametrize("given", [VARIABLE, SETTING])
async def test_a_custom_endpoint_makes_buckets_without_a_region(place: Place, given: Given) -> None:
    """A request to make a bucket is the same, whether a variable or the settings name the endpoint."""
    async with place.app(replace(given, origin={**(given.origin or {}), "region": "eu-west-1"})) as app:
        with suppress(OriginError):
            await app.origin.create_bucket(f"{place.s3.bucket}-new")
    assert [seen.method for seen in place.here.seen][-1] == "PUT"
    assert place.here.seen[-1].headers.get("content-length", "0") == "0"


async def test_buckets_in_the_host_name_are_at_the_endpoint(place: Place) -> None:
    """A custom endpoint includes the hosts below its own, for buckets in the host name (I29)."""
    place.set_environment(Given())
    settings = OriginSettings.model_validate({"credentials": KEYS, "endpoint_url": "http://Host.Example:80"})
    async with S3Origin(settings) as origin:
        includes = origin.endpoint.includes
        assert includes("http://host.example/bucket/o")
        assert includes("http://bucket.Host.example:80/o")
        assert not includes("http://bucket.host.example:81/o")
        assert not includes("https://host.example/o")
        assert not includes("http://nohost.example/o")
        assert not includes("http://mine.accesspoint.s3-global.amazonaws.com/o")
