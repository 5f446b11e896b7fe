"""The tree of entries that all workers of a program share: one writer, any number of readers."""
