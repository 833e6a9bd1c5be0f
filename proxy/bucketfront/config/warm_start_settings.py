"""The settings of a warm start."""

from typing import Annotated

from pydantic import Field, StringConstraints

from bucketfront.config.checked_text import BearerToken
from bucketfront.config.quantities import Duration, Size
from bucketfront.config.section import Section


class WarmStartSettings(Section):
    """What a proxy with an empty cache fetches before `/readyz` says that it is ready. Without the section, it fetches
    nothing. See [fleet.md](fleet.md#a-new-node).
    """

    peer: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#@\s]+/?$")] = Field(
        examples=["http://cache-1.internal:8081"]
    )
    """The admin port of a proxy with the same mounts. What it holds is fetched from S3, the most used objects first."""
    token: BearerToken | None = Field(default=None, examples=["file:/run/secrets/admin-token"])
    """The `admin.token` of the peer."""
    rate: Annotated[Size, Field(gt=0)] | None = Field(default=None, examples=["50MB"])
    """The bytes a second that S3 sends at most. null has no limit."""
    timeout: Annotated[Duration, Field(gt=0)] = 600.0
    """How long the proxy may take until it is ready. Then it serves with what it has."""
