"""Reports of a session for people and dashboards."""
