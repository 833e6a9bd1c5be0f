"""The fields of a line of the access log, each with its meaning, in the order of the lines. It is the source of
docs/log-fields.md, and a test compares it with what the lines have.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LineField:
    """One field. `text` is for operators. `is_always` is true if each JSON line has it."""

    name: str
    text: str
    is_always: bool = False


LINE_FIELDS: tuple[LineField, ...] = (
    LineField("time", "when the request ended, in UTC", is_always=True),
    LineField(
        "client",
        "the client's address, also behind a front of `server.trusted_proxies`; `-` if it is unknown",
        is_always=True,
    ),
    LineField("method", "the method; `-` if the parser refused the request", is_always=True),
    LineField("path", "the path as it was sent, without the query, which may hold a signature", is_always=True),
    LineField("status", "the status; 499 if the client left before its response was whole", is_always=True),
    LineField("sent", "the body bytes of an object that the client got", is_always=True),
    LineField(
        "from_cache",
        "those of them that the cache had when they were requested, on its disk or in memory",
        is_always=True,
    ),
    LineField("ms", "milliseconds from the request's head to the end of the response", is_always=True),
    LineField("first_byte_ms", "milliseconds to the response's first byte; absent if none left"),
    LineField("cache", "the decision of the cache and its reason, as in `Cache-Status` (RFC 9211)", is_always=True),
    LineField(
        "from_origin",
        "those of the bytes sent that came from S3 while the request ran, for it or for another one that it joined",
        is_always=True,
    ),
    LineField("received", "the body bytes of an upload"),
    LineField("mount", "the path of the mount; absent if the request reached none"),
    LineField("key", "bucket and key of the object, percent-encoded; of several candidates the one that was sent"),
    LineField("fault", "the kind of the failure, or the cause of a cut response"),
    LineField("cut", "why the proxy ended a response early: see [http.md](http.md)"),
    LineField("user", "the access rule that held and the name that it knows: `staff:ann`, `devices:device-7`"),
    LineField("span_id", "the span of this request in the client's trace; S3 gets it as the parent"),
    LineField("cause", "what the origin did, with the cure if there is one"),
    LineField(
        "s3",
        "S3's response behind a failure: `status`, `code`, and for AWS Support `request_id` (`x-amz-request-id`) and"
        " `host_id` (`x-amz-id-2`). The status is 200 for an error inside a 200",
    ),
    LineField("range", "the request's `Range` as it was sent"),
    LineField("user_agent", "the request's `User-Agent`, if `access_log.fields` has it"),
    LineField("referer", "the request's `Referer` without its query, if `access_log.fields` has it"),
    LineField("request_id", "the id of the request: see [request ids](#request-ids)"),
    LineField("trace_id", "the trace of the request: see [traces](#traces)"),
    LineField("parent_span_id", "the span of the client in that trace"),
)
"""All fields, in the order of a JSON line."""
