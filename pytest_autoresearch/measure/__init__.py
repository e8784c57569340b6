"""From a commit to its runs."""
