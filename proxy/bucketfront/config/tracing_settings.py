"""The settings of OpenTelemetry traces."""

from typing import Annotated

from pydantic import Field, StringConstraints

from bucketfront.config.section import Section


class TracingSettings(Section):
    """OpenTelemetry traces, which need `pip install 'bucketfront[otel]'`. `{}` turns them on, without the section they
    are off.

    The `OTEL_` variables of the environment count for what this section leaves out: `OTEL_EXPORTER_OTLP_ENDPOINT`,
    `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`. See [tracing.md](tracing.md).
    """

    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")] | None = Field(
        default=None, examples=["http://localhost:4318"]
    )
    """The collector, which takes OTLP over HTTP at `/v1/traces` below this URL. null takes that of the environment, or
    `http://localhost:4318`."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The share of traces that begin here and are sampled, from 0 to 1. A request that brings a trace is sampled if its
    sender has sampled it."""
