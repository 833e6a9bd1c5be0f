"""The data plane: from a parsed request to the last byte of its answer."""
