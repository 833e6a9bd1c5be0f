"""The embedded S3, for trying bucketfront out."""
