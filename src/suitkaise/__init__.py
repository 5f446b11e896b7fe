"""Declare supervision trees of processes and threads; they are kept alive."""
