"""The S3 endpoint: a listener whose clients speak S3's REST API (docs/s3-endpoint.md)."""
