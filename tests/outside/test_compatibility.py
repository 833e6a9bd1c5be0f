"""bucketfront in front of S3 servers of others (docs/s3-servers.md)."""

from pathlib import Path

import installs
import pytest
import s3_compatibility
from s3_servers import SERVERS

STEPS = 60  # half of those for the page, so that all servers together take a minute

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", SERVERS)
def test_no_wrong_byte_and_no_false_success(name: str, tmp_path: Path) -> None:
    """I1, I3, I5, I8, I13: whatever is wrong at the server, no client gets a wrong byte, a 404 for what exists, or the
    success of a write that the server did not keep or whose condition did not hold.
    """
    try:
        report = s3_compatibility.examine(SERVERS[name], tmp_path, STEPS)
    except installs.NotInstallable as why:
        pytest.skip(f"not run: {why}")
    assert not report.outcome.wrong
    assert not report.outcome.ignored
    assert report.outcome.counts.total() > STEPS / 2
