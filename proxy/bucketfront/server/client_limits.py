"""How slow a client may be, in either direction (docs/invariants.md#deadlines-everywhere)."""

CLIENT_TIMEOUT_S = 30.0  # without any progress; mobile networks lose a client for some seconds, rarely for more
MIN_RATE_BYTES_PER_S = 1 << 10  # where no mount has its own; an audio stream of 32 kbit/s takes four times as much
