"""OpenTelemetry traces, with the extra `bucketfront[otel]`. No other room imports OpenTelemetry."""
