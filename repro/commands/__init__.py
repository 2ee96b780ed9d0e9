"""What the command line does, by topic. Heavy imports are inside the functions: `repro --help` waits for none."""
