"""Sandboxes: what a process may see and use, and how it is started with that."""
