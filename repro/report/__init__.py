"""From run records to tables, figures and verdicts. Imports no torch."""
