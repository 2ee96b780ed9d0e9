"""From rows to finished runs."""
