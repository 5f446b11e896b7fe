"""What runs: worker classes, their life cycle and their hooks, external commands."""
