"""Where the entries lie: an LMDB environment with one writer and many readers."""
