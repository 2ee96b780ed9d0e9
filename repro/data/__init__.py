"""Data sets and the loader that feeds a training from any step on."""
