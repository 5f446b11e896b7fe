"""Processes and threads in the words of the concept: `with` blocks that set a worker up, and what they call inside."""
