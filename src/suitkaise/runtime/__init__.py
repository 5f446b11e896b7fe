"""What a program that owns trees has: the runtime, its running trees, the ways to start them, the workers' server."""
