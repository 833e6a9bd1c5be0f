"""Jobs that fill the cache ahead of use, and what they read: lists of keys, playlists, sitemaps and manifests.

`JobRegistry` starts jobs and knows them. A `Job` takes items from a source, and a `Filler` brings each into the cache
through the cache's own door. The parsers of playlists and manifests are pure.
"""
