"""Proposers: the sources of proposals."""
