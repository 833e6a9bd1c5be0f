"""The collectors of `/metrics`. Each room counts its own events, and these modules format the counts."""
