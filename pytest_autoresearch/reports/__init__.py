"""What people and dashboards see of a session."""
