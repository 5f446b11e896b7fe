"""The pure policy of supervisors: what happens goes in, what is to be done comes out. No clock, no thread, no I/O."""
