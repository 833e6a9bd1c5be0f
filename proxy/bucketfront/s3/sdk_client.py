"""aiobotocore's client, with every default of the SDK that matters set (docs/invariants.md#fail-closed).

All calls of the client pass the hooks that are registered here, so that no call can omit what they add or check.
"""

import re
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.handlers import add_retry_headers

from bucketfront import __version__
from bucketfront.config.origin_settings import OriginSettings, ProfileCredentials
from bucketfront.errors import OriginError
from bucketfront.http.trace_context import TRACEPARENT, TRACESTATE
from bucketfront.request_trace import current_trace
from bucketfront.s3 import responses, sdk_start
from bucketfront.s3.bucket_terms import BucketTerms
from bucketfront.s3.credentials import OriginCredentials
from bucketfront.s3.endpoint import S3Endpoint, resolve
from bucketfront.s3.signature import Signature
from bucketfront.s3.transport import StrictHTTPSession
from bucketfront.s3.trust import bundle_of

# Control characters, also as references, and the octets that are not ASCII, which may not be UTF-8.
_UNREPRESENTABLE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xff]|&#[^;<]{1,8};")
_NAMESPACE = re.compile(rb"<Error\s+xmlns=[^>]*>")


class SdkClient:
    """An async context manager, in whose block `client` can be called. `endpoint` is the one that it resolved.

    `endpoint_url` is that of the settings, or overrides it. The block closes `credentials` at its end.
    """

    client: Any
    endpoint: S3Endpoint

    def __init__(
        self,
        settings: OriginSettings,
        endpoint_url: str | None,
        credentials: OriginCredentials,
        signature: Signature,
    ) -> None:
        self._settings = settings
        self._endpoint_url = endpoint_url
        self._credentials = credentials
        self._signature = signature
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # The credential chain may read files. It has to work before the first request is accepted.
        with sdk_start.explained(self._settings):
            self.client = await self._stack.enter_async_context(self._create_client())
            try:
                self.endpoint = await resolve(self.client, self._settings.endpoint_url, self._settings.region)
            except BaseException:
                await self._stack.aclose()
                raise
        self._stack.push_async_callback(self._credentials.close)
        events = self.client.meta.events
        events.unregister("request-created", add_retry_headers)  # about retries, which the SDK makes none of
        self._signature.register(events)
        BucketTerms(self._settings).register(events)
        events.register("before-parse.s3", _before_parse)
        events.register("before-call.s3", _before_call)
        events.register("before-call.s3", self._check_egress)
        events.register("before-send.s3", add_trace)
        events.register_first("after-call.s3", _as_sent)
        events.register("after-call.s3", _after_call)
        for operation in ("GetObject", "HeadObject"):
            events.register(f"before-call.s3.{operation}", _request_checksum)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _create_client(self) -> Any:
        settings = self._settings
        named = settings.credentials
        session = AioSession(profile=named.profile if isinstance(named, ProfileCredentials) else None)
        session.register_component("credential_provider", self._credentials)
        return session.create_client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=settings.region,
            verify=bundle_of(settings.ca_bundle, session),
            config=AioConfig(
                http_session_cls=StrictHTTPSession,
                connector_args={"keepalive_timeout": settings.keep_alive_timeout},
                signature_version=UNSIGNED if settings.credentials == "anonymous" else "s3v4",
                connect_timeout=settings.connect_timeout,
                read_timeout=settings.read_timeout,
                proxies=None if settings.environment_proxy else {},  # None makes the SDK read the environment
                max_pool_connections=settings.max_connections + 1,  # the last is for the reference read
                retries={"total_max_attempts": 1, "mode": "standard"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                parameter_validation=True,
                user_agent=f"bucketfront/{__version__}",
                s3={"addressing_style": settings.addressing_style, "payload_signing_enabled": False},
            ),
        )

    def _check_egress(self, params: dict[str, Any], **_: Any) -> None:
        """Refuse a request that would leave the endpoint (docs/invariants.md#fixed-egress).

        The SDK sends those of a Multi-Region Access Point to AWS, whatever the endpoint is.
        """
        if not self.endpoint.includes(params["url"]):
            raise OriginError("the bucket is not at the endpoint: its requests would go to another host")


def _before_parse(response_dict: dict[str, Any], **_: Any) -> None:
    # S3 repeats the key in an error, and XML cannot represent all of its characters. Some servers name a namespace. In
    # neither case would botocore find the code.
    if response_dict["status_code"] >= 300 and isinstance(response_dict["body"], bytes):
        response_dict["body"] = _NAMESPACE.sub(b"<Error>", _UNREPRESENTABLE.sub(b"?", response_dict["body"]))


def _before_call(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    # botocore adds Expect to every streamed body, and aiohttp waits for the 100 without a timeout.
    params["headers"].pop("Expect", None)
    # This switches botocore's region redirector off, so that connections go to the configured endpoint only
    # (docs/invariants.md#fixed-egress).
    context.setdefault("s3_redirect", {})["redirected"] = True


def add_trace(request: Any, **_: Any) -> None:
    """Add the fields that connect a signed request with that of the client."""
    # Behind the signature, because a server in between may replace these fields.
    trace = current_trace()
    if trace is None:
        return
    agent = request.headers.get("User-Agent", "")
    agent = agent if isinstance(agent, str) else agent.decode()
    request.headers["User-Agent"] = f"{agent} (request {trace.request_id})"  # S3's access logs have this field
    add_hops(request)


def add_hops(request: Any) -> None:
    """Add the fields by which servers find loops, and traces their way (RFC 9110 section 7.6.3)."""
    trace = current_trace()
    if trace is None:
        return
    for name, value in (("Via", trace.via), (TRACEPARENT, trace.traceparent), (TRACESTATE, trace.tracestate)):
        if value is not None:
            request.headers[name] = value


def _as_sent(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
    details = parsed["ResponseMetadata"]
    details["HTTPHeaders"] = http_response.raw.fields
    # botocore raises an error inside a 200 as if it were a 500, and overwrites HTTPStatusCode.
    details["SentStatus"] = http_response.raw.status
    details["Raw"] = http_response.raw


def _after_call(http_response: Any, model: Any, **_: Any) -> None:
    # The two that read objects are checked with more knowledge, and a GET's body must be closed.
    if model.name not in ("GetObject", "HeadObject"):
        responses.check_done(http_response.status_code, model.name)


def _request_checksum(params: dict[str, Any], **_: Any) -> None:
    # The parameter ChecksumMode would make botocore compare the checksum itself, in a slower stream around each body.
    params["headers"]["x-amz-checksum-mode"] = "ENABLED"
