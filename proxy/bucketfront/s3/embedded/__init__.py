"""The embedded S3, for trying things out."""
