"""From a proposal to a judged record."""
