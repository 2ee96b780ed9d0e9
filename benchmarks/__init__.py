"""The measurements behind the performance figures in docs/performance.md: `make bench`."""
