"""Messages between workers, wherever they run: refs, mailboxes, frames, the registry of paths."""
