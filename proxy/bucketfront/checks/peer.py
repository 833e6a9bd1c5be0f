"""Check that the peer of a warm start exports what it holds."""

from bucketfront.checks.result import CheckResult, fine, warning
from bucketfront.config.warm_start_settings import WarmStartSettings
from bucketfront.warm.peer import Peer, PeerFailed

_SUBJECT = "warm start"


async def check_peer(settings: WarmStartSettings) -> CheckResult:
    """Return whether a start with an empty cache gets a list of the peer."""
    name = settings.peer
    try:
        async with Peer(settings) as peer:
            page = await peer.page_behind("")
    except PeerFailed as error:
        return warning(_SUBJECT, f"of no use now, so an empty cache is filled by requests alone: {error}", name)
    if not page.objects:
        return warning(_SUBJECT, "the peer responds, and holds nothing", name)
    more = "" if page.cursor is None else ", and more"
    return fine(_SUBJECT, f"the peer exports {len(page.objects)} objects{more}", name)
