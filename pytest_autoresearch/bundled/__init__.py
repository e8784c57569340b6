"""The acceptance rule for a repository that has none."""
