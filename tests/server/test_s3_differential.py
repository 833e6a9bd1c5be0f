"""The same requests to S3 itself and through bucketfront's S3 endpoint: status, fields and documents are the same."""

import time
from collections.abc import AsyncIterator

import pytest
from held_port import held_port
from proxy_under_test import S3, StartProxy, WallClock
from rows import each_row
from s3_comparison import Side, difference
from s3_further_steps import FURTHER, FURTHER_VERSIONED
from s3_signer import Signer
from s3_steps import SCENARIOS, VERSIONED, Step
from ulid import ULID

from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.config.settings import Settings

SECRET = "app-secret-of-forty-characters-0123456789"
FEW = 16  # scenarios in `make test`
PLAIN = {**SCENARIOS, **FURTHER}
WITH_VERSIONS = {**VERSIONED, **FURTHER_VERSIONED}

has_endpoint = pytest.mark.skipif("s3" not in Settings.model_fields, reason="this version has no S3 endpoint")


@pytest.fixture(scope="session", params=["moto", pytest.param("SeaweedFS", marks=pytest.mark.e2e)])
def origin_server(request: pytest.FixtureRequest) -> OriginSettings:
    name = "moto_s3" if request.param == "moto" else "seaweed"
    found: OriginSettings = request.getfixturevalue(name)
    return found


def signer_of(origin: OriginSettings) -> Signer:
    found = origin.credentials
    assert isinstance(found, StaticCredentials)
    return Signer(found.access_key_id.get_secret_value(), found.secret_access_key.get_secret_value(), time.time)


@pytest.fixture
def straight(origin_server: OriginSettings, s3: S3) -> Side:
    """Return S3 itself, with a bucket of its own whose name is as long as the other one's."""
    bucket = f"b-{ULID()}".lower()
    s3.client.create_bucket(Bucket=bucket)
    assert origin_server.endpoint_url is not None
    return Side(origin_server.endpoint_url, bucket, signer_of(origin_server))


@pytest.fixture
async def through(start: StartProxy, s3: S3, clock: WallClock, origin_server: OriginSettings) -> AsyncIterator[Side]:
    with held_port() as port:
        key = {"id": "app", "secret": SECRET, "buckets": [s3.bucket], "write": True}
        await start(s3={"port": port, "keys": [key]}, origin={"credentials": origin_server.credentials})
        yield Side(f"http://127.0.0.1:{port}", s3.bucket, Signer("app", SECRET, clock))


async def compare(one: Side, other: Side, folder: str, steps: list[Step]) -> None:
    """Send all steps to both. Fails with all differences."""
    found = []
    for number, step in enumerate(steps):
        first, second = [side.view(await side.send(folder, step)) for side in (one, other)]
        if not step.differs and (others := difference(first, second)):
            found.append(f"{number}. {step}: {others}")
    assert not found, "\n".join(found)


@has_endpoint
@each_row("name", PLAIN, few=FEW)
async def test_scenarios(straight: Side, through: Side, name: str) -> None:
    """A client of S3 sees no difference between bucketfront and S3, cold, warm, or after its own writes."""
    await compare(straight, through, name, PLAIN[name])


@has_endpoint
@each_row("name", WITH_VERSIONS)
async def test_versions(straight: Side, through: Side, s3: S3, name: str) -> None:
    """The same in a bucket with versions, whose deletes leave markers."""
    for side in (straight, through):
        s3.client.put_bucket_versioning(Bucket=side.bucket, VersioningConfiguration={"Status": "Enabled"})
    await compare(straight, through, name, WITH_VERSIONS[name])


# --- the comparison itself -----------------------------------------------------------------------------------


@pytest.mark.long
async def test_s3_and_itself(straight: Side, s3: S3, origin_server: OriginSettings) -> None:
    """S3 differs in nothing from itself, so that what is ignored is enough."""
    again = Side(straight.url, s3.bucket, straight.signer)
    for name, steps in PLAIN.items():
        await compare(straight, again, name, steps)


def test_number_of_requests() -> None:
    """There are more than 500 requests."""
    assert sum(len(steps) for steps in (*PLAIN.values(), *WITH_VERSIONS.values())) >= 500
