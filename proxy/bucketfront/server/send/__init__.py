"""The bytes of a response, from a file or from the origin, to the client."""
