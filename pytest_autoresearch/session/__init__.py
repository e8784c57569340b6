"""Everything pytest: from the command line to the last report."""
