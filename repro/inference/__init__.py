"""Turns finished models into small and fast ones: physical shrinking, sparse kernels, export."""
