"""What bucketfront promises, as the tests name it: I1 to I31, each in a sentence or two."""

from reliability_page import Invariant

_STATED = """
Version purity: Every byte of a 200 or 206 is a byte of the version that its ETag names; where that cannot be kept,
the connection is cut before `Content-Length` is reached.

No holes: A byte comes from disk only if its block's bit is set, or below the written mark of a live flight; the bit
is set after the block's whole write and its checksum.

Exact length: As many bytes are sent as `Content-Length` says, or the connection is aborted; nothing shorter than the
origin's length is ever complete.

One source of metadata: All metadata of an answer come from one response of the origin.

Read your writes: After a 2xx to a write, each read begun later gives that version or a newer one.

No stale fill: What was asked before a write, a purge or a change of the ETag never shows after it.

Bounded staleness: The age since the last validation is at most the TTL in force and the stale windows, and the answer
says so; on one connection versions never go backwards.

Write atomicity: A failed or aborted upload leaves the object at its old version; a client that closes early never
makes a shorter object.

Unknown outcome: Where the result of a write is unknown, the key is invalidated before and after, the client gets 502
or 504, and the body is not cached.

Single flight: At most one GET per key, version and block is running at the origin, and bytes are fetched once.

A dead flight: If a flight dies, its readers go on with a new one within 2 s.

Cancellation: Cancelling a request changes no other one; a connection is pooled only with its body read to the end; at
rest nothing is left over.

Errors are not data: Errors and cut bodies are never cached and never read as absence; only S3's own 404 is, for a
short time. 401 and 403 are not shared.

Crash-only: After a kill at any system call the next start needs nobody, is soon ready, and all bytes are right. After
a power loss the cache may be lost, never wrong.

Self-healing: A corrupt or short block is found before a byte of it is sent or within a scrub period, counted, and
fetched again; the same request succeeds.

Disk faults degrade: Whatever the disk does, requests go on without the cache; no 5xx because of the disk.

Space bound: Allocated bytes never pass `max_size` and the running flights' blocks; `min_free` stays free.

Eviction is safe and bounded: It only unlinks, open answers end well, and one turn takes at most 50 ms.

Memory: Bounded by connections and running flights: not by object size, client speed, header content or number of
entries.

Deadlines everywhere: Heads, bodies, uploads, downloads and each step at the origin have a deadline.

Descriptors: Accepting stops at 80 % of the limit, beyond it there is 503 with `Retry-After`; the admin port answers
even then.

Cost of a request: No request holds the loop for over 50 ms; Range headers are bounded, their arithmetic is total.

One name: A path names one key, or it is 400; two paths name one key only if they decode to equal bytes.

One framing: An ambiguous message is refused, the connection closes, and nothing reaches the origin. Bodies are stored
as sent.

Complete cache key: Endpoint, bucket, key and version name the stored bytes; headers pass by allow-list in both
directions.

No untested mode: What changes the I/O or the access path runs the integrity tests.

Admin is apart: It has a listener of its own, beyond loopback only with a token. A purge is complete when it answers,
and survives a restart.

Secrets stay in: No key, token or signature in logs, metrics or errors; log lines carry no control characters; labels
come from closed sets.

Fixed egress: Connections go to the configured endpoint only; redirects are not followed.

Fail closed: A wrong configuration ends the start with one clear line; every default of the SDK that matters is set.

Serve without the origin: With S3 out of reach fresh hits still answer, and misses fail within their deadline.
"""


def _read(stated: str) -> tuple[Invariant, ...]:
    """One of each paragraph."""
    found = []
    for number, paragraph in enumerate(stated.strip().split("\n\n"), start=1):
        title, _, statement = " ".join(paragraph.split()).partition(": ")
        found.append(Invariant(number, title, statement))
    return tuple(found)


INVARIANTS = _read(_STATED)
