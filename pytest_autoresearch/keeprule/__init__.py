"""The statistics of the keep rule: pure functions of numbers."""
