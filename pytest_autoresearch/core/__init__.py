"""Frozen values that all other packages speak in."""
