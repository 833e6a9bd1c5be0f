"""Check what the proxy takes before it can serve: this machine, and the buckets at S3. For `bucketfront check`."""

from collections.abc import Sequence
from pathlib import Path

from bucketfront.checks.buckets import check_buckets
from bucketfront.checks.bus import check_bus
from bucketfront.checks.events import check_events
from bucketfront.checks.machine import Explain, check_machine
from bucketfront.checks.peer import check_peer
from bucketfront.checks.result import CheckResult, CheckVerdict, failed, fine, warning
from bucketfront.config.settings import Settings
from bucketfront.errors import OriginError
from bucketfront.s3.client import S3Origin
from bucketfront.s3.embedded import launcher

__all__ = ["CheckResult", "CheckVerdict", "run_checks"]


async def run_checks(
    settings: Settings, explain: Explain = str, warnings: Sequence[str] = (), config: Path | None = None
) -> list[CheckResult]:
    """Return the results of all checks. `explain` returns an error's message with the place of its setting.

    `warnings` are those about the configuration itself, and `config` is its file.
    """
    mounts = len(settings.mounts)
    results = [fine("configuration", f"{mounts} {'mount' if mounts == 1 else 'mounts'}")]
    results += [warning("configuration", text) for text in warnings]
    results += check_machine(settings, explain, config)
    if settings.bus is not None:
        results.append(await check_bus(settings.bus))
    if settings.warm_start is not None:
        results.append(await check_peer(settings.warm_start))
    if settings.origin.endpoint_url == "embedded":
        results.append(_embedded())
        return [*results, *[result async for result in check_events(settings)]]
    try:
        async with S3Origin(settings.origin) as origin:
            results.append(fine("origin", str(origin.endpoint)))
            results += [result async for result in check_buckets(settings, origin)]
    except OriginError as error:
        results.append(failed("origin", str(error)))
    return [*results, *[result async for result in check_events(settings)]]


def _embedded() -> CheckResult:
    if not launcher.is_installed():
        return failed("origin", launcher.CURE)
    return fine("origin", "embedded: starts and ends with the proxy")
