"""Reads and compares programs: which edits are allowed, and what they change."""
