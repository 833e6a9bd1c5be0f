"""Starts the traces of the settings, if the extra is installed."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bucketfront.config.tracing_settings import TracingSettings
from bucketfront.errors import UnusableSetting

if TYPE_CHECKING:
    from bucketfront.tracing.span_export import SpanExport
    from bucketfront.tracing.tracer import Tracer

CURE = "tracing needs OpenTelemetry: pip install 'bucketfront[otel]', or leave the section out"


@dataclass(frozen=True, slots=True)
class Tracing:
    """What makes spans, and what exports them."""

    tracer: "Tracer"
    export: "SpanExport"


def check_installed() -> None:
    """Raise UnusableSetting if the extra is not installed."""
    try:
        is_installed = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        is_installed = False
    if not is_installed:
        raise UnusableSetting(CURE, ("tracing",))


def start_tracing(settings: TracingSettings) -> Tracing:
    """Start the export, in a thread of its own. Raises UnusableSetting if the extra is not installed."""
    check_installed()
    # Here, because a start without traces imports nothing of OpenTelemetry, which may not be installed.
    from bucketfront.tracing.span_export import open_export, resource  # noqa: PLC0415
    from bucketfront.tracing.tracer import Tracer  # noqa: PLC0415

    export = open_export(settings)
    return Tracing(Tracer(settings.sample_ratio, resource(), export.emit), export)
