"""Workers on other machines: a node runs the engine for processes, and the program tells it what to run."""
