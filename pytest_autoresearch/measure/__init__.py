"""Measures commits: makes their runs."""
