"""The sandboxes there are: each makes a command out of what a process may see."""
