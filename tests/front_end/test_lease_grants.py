"""What the owner sends to front ends about the bound of freshness."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cache"))
from cache_harness import Rig

from bucketfront.front_end.lease_grants import Holder, LeaseGrants
from bucketfront.front_end.message import Kind, Message


@pytest.mark.parametrize("grace", [10.0, None])
async def test_front_ends_follow_the_bound_of_freshness(tmp_path: Path, grace: float | None) -> None:
    """A front end gets the bound before any lease, and each time that it moves; none is sent without one (I36)."""
    sent: list[Message] = []
    async with Rig(tmp_path) as rig:
        if grace is not None:
            rig.cache.bound.grace = grace
        grants = LeaseGrants(rig.cache, rig.wall)
        grants.join(Holder(lambda message, _: sent.append(message), lambda: None))
        rig.cache.bound.advance(3.0)
        rig.cache.bound.advance(2.0)
    facts = [(message.kind, message.facts["grace"], message.facts["at"]) for message in sent]
    assert facts[-1:] == ([(Kind.IN_STEP, 10.0, 3.0)] if grace else [])
    assert len(facts) == (2 if grace else 0)
