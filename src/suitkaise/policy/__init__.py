"""The pure policy of supervisors: events go in, actions come out. No clock, no thread, no I/O."""
