"""A night of machine-learning research as a pytest session."""
