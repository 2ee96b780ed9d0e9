"""Finished models made small and fast: physical shrinking, sparse kernels, export."""
