"""Places to train."""
