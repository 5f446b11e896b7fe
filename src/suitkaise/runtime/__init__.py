"""What a program that owns trees has: the runtime, its running trees, the ways to start them, the hub's server."""
