"""Finished requests on their way from a front end to the owner: each arrives as it was, and its record once (I36)."""

import json
import random

import pytest

from bucketfront.front_end import facts
from bucketfront.front_end.facts import KnownRecords, SentRecords
from bucketfront.keys import ObjectKey
from bucketfront.server.cut import Cut
from bucketfront.server.telemetry.access_log import LAST, AccessRecord, FinishedRequest, json_lines
from bucketfront.server.telemetry.logged_fields import NAMES, NOTHING

FIELDS = (b"an agent", *(None,) * (len(NAMES) - 1))


def record(number: int) -> AccessRecord:
    return AccessRecord(
        method="GET",
        path=f"/object{number}",
        status=200,
        cache="hit; ttl=60",
        outcome="hit",
        mount="/",
        key=ObjectKey("bucket", f"object{number}", None),
        size=number,
        first_byte=LAST if number % 2 else 0.25,
        cut=Cut.STOP if number % 3 == 0 else None,
    )


def passed(sent: SentRecords, known: KnownRecords, requests: list[FinishedRequest]) -> list[FinishedRequest]:
    """Return the requests as the owner gets them."""
    facts, lines = sent.facts_of(requests)
    return known.requests_of(json.loads(json.dumps(facts)), lines)


def batch(records: list[AccessRecord]) -> list[FinishedRequest]:
    return [(one, 10 + at, "10.0.0.1", 1e9 + at, 0.5, FIELDS if at % 2 else NOTHING) for at, one in enumerate(records)]


def test_each_request_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the log are those that the front end would have written, over many batches, also once records were
    forgotten.
    """
    rng, records = random.Random(1), [record(number) for number in range(50)]
    sent, known = SentRecords(), KnownRecords()
    monkeypatch.setattr(facts, "MAX_KNOWN_RECORDS", 40)
    for _ in range(200):
        requests = batch(rng.choices(records, k=rng.randrange(1, 20)))
        assert json_lines(passed(sent, known, requests)) == json_lines(requests)


def test_a_record_is_sent_once() -> None:
    """Hits of one kind share a record in the owner as well, so that it makes the constant part of their lines once."""
    one, sent, known = record(1), SentRecords(), KnownRecords()
    first, second = passed(sent, known, batch([one] * 3)), passed(sent, known, batch([one] * 3))
    assert len({id(each[0]) for each in first + second}) == 1
    assert sent.facts_of(batch([one]))[0]["records"] == []
