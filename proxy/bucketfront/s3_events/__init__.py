"""S3's event notifications: what they say, where they come from, and what the cache does then."""
