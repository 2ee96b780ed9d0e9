"""What the fork server imports once for all runs: everything heavy, and nothing that starts a thread."""

