"""W&B workspaces and reports of a table, built from its frame."""
