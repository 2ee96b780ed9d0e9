"""The command line: one module per command. Heavy imports are inside functions, so that `repro --help` is fast."""
