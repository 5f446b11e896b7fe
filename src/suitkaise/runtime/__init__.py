"""What a program that owns trees has: the runtime, the running trees, the ways to start them, the server for workers."""
