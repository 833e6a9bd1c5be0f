"""Single flight: how bytes and metadata come from the origin, once for all who wait."""
