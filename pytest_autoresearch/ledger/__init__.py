"""Everything git."""
