"""Responses to plain requests for whole, fresh objects, before aiohttp sees them."""
