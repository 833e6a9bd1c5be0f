"""Uploads to S3: one PutObject, or the parts of a multipart upload."""
