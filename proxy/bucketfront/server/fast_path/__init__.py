"""Plain requests for whole, fresh objects, answered before aiohttp sees them."""
