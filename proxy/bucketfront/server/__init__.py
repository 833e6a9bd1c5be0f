"""The data plane: from a connection's bytes to the last byte of a response."""
