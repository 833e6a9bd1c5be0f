"""The HTTP proxy that the environment names, which counts for the origin only by a setting."""

import asyncio

import pytest
from fakes import RawServer, answering, response
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.http.ranges import FromTo
from bucketfront.keys import ObjectKey
from bucketfront.s3.client import S3Origin

OBJECT = response("206 Partial Content", b"x", ETag='"1"', Content_Range="bytes 0-0/1")


@pytest.mark.parametrize("is_used", [False, True])
async def test_an_http_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch, is_used: bool) -> None:
    """I29: requests go to the configured endpoint, whatever the environment says, unless a setting allows it."""
    async with asyncio.timeout(HANG_S), RawServer(answering(OBJECT)) as server, RawServer(answering(OBJECT)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.endpoint_url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret"}
        given = {"endpoint_url": server.endpoint_url, "credentials": keys, "environment_proxy": is_used}
        async with S3Origin(OriginSettings.model_validate(given)) as origin:
            await origin.get(ObjectKey("bucket", "o"), FromTo(0, 1))
        assert (len(server.heads), len(proxy.heads)) == ((0, 1) if is_used else (1, 0))
        assert OriginSettings().environment_proxy is False
