"""This repository's own wiring: its tests drive pytest itself."""

pytest_plugins = ["pytester"]
