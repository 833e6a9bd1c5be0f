"""The only user of aiobotocore. Its errors are translated here, once."""
