"""Where the entries lie: in LMDB, SQLite or Redis, each with one writer and many readers."""
