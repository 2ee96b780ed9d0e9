"""The measurements behind the performance figures in the README: `make bench`."""
