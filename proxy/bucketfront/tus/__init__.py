"""Uploads that go on where they broke off: their state in the cache folder, their bytes on the way to S3."""
