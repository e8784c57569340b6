"""Everything about git: refs, records, worktrees, remotes, and `results.tsv`."""
