"""Check the bus: that it can be reached, read and written."""

from bucketfront.checks.result import CheckResult, failed, fine, warning
from bucketfront.config.bus_settings import BusSettings
from bucketfront.errors import UnusableSetting
from bucketfront.fleet.assembly import connect
from bucketfront.fleet.bus import BusError, EntryId, Member
from bucketfront.fleet.notice import Signal, encoded

_NODE = "check"  # it leaves the register at once


async def check_bus(settings: BusSettings) -> CheckResult:
    """Return whether a proxy can do with the bus all that it does."""
    try:
        bus = connect(settings)
    except UnusableSetting as error:
        return failed("bus", str(error))
    try:
        await bus.append(_NODE, list(encoded(Signal.ACKNOWLEDGE)))
        await bus.read(EntryId())
        await bus.register(Member(_NODE, _NODE, EntryId()), settings.ttl_when_lost)
        await bus.leave(_NODE)
        members = await bus.members()
    except BusError as error:
        return warning("bus", f"of no use now, so objects are fresh for bus.ttl_when_lost only: {error}")
    finally:
        await bus.close()
    names = ", ".join(member.name for member in members)
    return fine("bus", f"live proxies: {names}" if names else "no proxy is live")
