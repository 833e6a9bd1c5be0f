"""How slow a client may be, in either direction (docs/invariants.md#deadlines-everywhere)."""

CLIENT_TIMEOUT_S = 30.0  # without any progress; mobile networks lose a client for some seconds, rarely for more
MIN_RATE_BYTES_PER_S = 8 << 10  # below the slowest network in use, and high enough that 1 MiB is over in two minutes
