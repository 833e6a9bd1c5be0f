"""The body of an upload, from the client."""
