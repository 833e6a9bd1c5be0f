CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL, bucket TEXT NOT NULL, key BLOB NOT NULL,
    file TEXT NOT NULL, etag TEXT NOT NULL, size INTEGER NOT NULL, metadata TEXT NOT NULL,
    stored_at REAL NOT NULL, validated_at REAL NOT NULL, accessed_at REAL NOT NULL,
    bytes INTEGER NOT NULL,   -- charged against max_size
    epoch INTEGER NOT NULL,   -- the last start before every present block was written or verified
    UNIQUE (origin, bucket, key)
);
CREATE INDEX entries_by_access ON entries (accessed_at);
CREATE INDEX entries_by_shard ON entries (substr(file, -2), file);
CREATE TABLE pages (
    entry INTEGER NOT NULL, page INTEGER NOT NULL,
    present BLOB NOT NULL,    -- bitmap, little endian
    sums BLOB NOT NULL,       -- CRC-32 of each block of the page, 4 bytes little endian, 0 where absent
    PRIMARY KEY (entry, page)
) WITHOUT ROWID;
CREATE TABLE tags (tag TEXT NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (tag, entry)) WITHOUT ROWID;
CREATE INDEX tags_by_entry ON tags (entry);
CREATE TABLE discarded (      -- entries that a purge removed, whose files and rows are removed in the background
    entry INTEGER PRIMARY KEY,
    file TEXT, bytes INTEGER NOT NULL DEFAULT 0,              -- of an entry whose row another one has replaced
    stored_at REAL, accessed_at REAL
);
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    UPDATE state SET value = value + NEW.bytes WHERE name = 'bytes';
    UPDATE state SET value = value + 1 WHERE name = 'entries';
END;
CREATE TRIGGER entry_changed AFTER UPDATE OF bytes ON entries BEGIN
    UPDATE state SET value = value + NEW.bytes - OLD.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE state SET value = value - OLD.bytes WHERE name = 'bytes';
    UPDATE state SET value = value - 1 WHERE name = 'entries';
    DELETE FROM pages WHERE entry = OLD.id;
    DELETE FROM tags WHERE entry = OLD.id;
    UPDATE discarded SET file = OLD.file, bytes = OLD.bytes, stored_at = OLD.stored_at, accessed_at = OLD.accessed_at
        WHERE entry = OLD.id;
END;
CREATE TRIGGER discarded_replaced AFTER UPDATE OF bytes ON discarded BEGIN
    UPDATE state SET value = value + NEW.bytes - OLD.bytes WHERE name = 'bytes';
END;
CREATE TRIGGER discarded_removed AFTER DELETE ON discarded WHEN OLD.bytes BEGIN
    UPDATE state SET value = value - OLD.bytes WHERE name = 'bytes';
END;
INSERT INTO state VALUES ('bytes', 0), ('entries', 0), ('clean', 1), ('epoch', 0), ('durable', 0), ('trusted_from', 0),
    ('tag_fields', 0),        -- fingerprint of the header fields that name tags
    ('untagged', 0);          -- rows with ids up to this one may lack their tags
