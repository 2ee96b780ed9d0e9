"""Parameters, MACs and time."""
