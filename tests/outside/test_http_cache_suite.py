"""The public HTTP cache test suite against a whole bucketfront with strict settings (docs/http.md)."""

import re
from pathlib import Path

import http_cache_suite
import installs
import pytest
from http_cache_suite import CHOICES, NOT_OF_S3, reason
from http_caches import bucketfront

FEWEST = 120  # tests that apply

pytestmark = pytest.mark.e2e


async def test_all_tests_that_apply_pass_or_fail_on_purpose(tmp_path: Path) -> None:
    """RFC 9111: of the suite's tests that a cache of S3 can be put to, only those fail that docs/http.md explains."""
    try:
        suite = http_cache_suite.install()
    except installs.NotInstallable as why:
        pytest.skip(f"not run: {why}")
    cases = await http_cache_suite.run(suite, bucketfront, tmp_path)
    for pattern in (*NOT_OF_S3, *CHOICES):
        assert any(re.fullmatch(pattern, case.id) for case in cases), f"{pattern} matches no test"
    failed = [f"{case.id}: {case.failure}" for case in cases if case.failure and not reason(case, CHOICES)]
    assert not failed
    assert sum(case.is_run for case in cases) > FEWEST
