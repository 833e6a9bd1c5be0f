"""What `cache.mode: shadow` has found so far."""

from pydantic import BaseModel, ConfigDict

from bucketfront.cache import Shadow


class ShadowDifference(BaseModel):
    """A response that the cache would have served wrongly. `at` is in seconds since the epoch."""

    model_config = ConfigDict(extra="forbid")

    verdict: str
    bucket: str
    key: str
    text: str
    at: float


class ShadowFigures(BaseModel):
    """The comparisons with S3 by their verdict, and the last of those that show a fault: see docs/modes.md."""

    model_config = ConfigDict(extra="forbid")

    verdicts: dict[str, int]
    differences: list[ShadowDifference]


def shadow_figures(shadow: Shadow) -> ShadowFigures:
    return ShadowFigures(
        verdicts={verdict.value: count for verdict, count in shadow.counts.items()},
        differences=[
            ShadowDifference(
                verdict=each.verdict.value, bucket=each.key.bucket, key=each.key.key, text=each.text, at=each.at
            )
            for each in shadow.differences
        ],
    )
