"""S3's event notifications: what they report, where they come from, and what the cache does then."""
