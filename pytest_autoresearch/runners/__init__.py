"""Runners: they start, watch and end processes."""
