"""Single flight: bytes and metadata come from the origin once, for all requests that wait for them."""
