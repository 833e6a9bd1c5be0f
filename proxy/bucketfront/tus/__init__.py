"""Resumable uploads: their state in the cache folder, and their bytes on the way to S3."""
