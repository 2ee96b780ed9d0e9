"""Documents that are executed on the records there are."""
