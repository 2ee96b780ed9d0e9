"""Published tables as data: rows, row sets, published values and their sources."""
