"""What an edit is and what it may be."""
