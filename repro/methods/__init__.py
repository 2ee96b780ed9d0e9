"""Sparse training methods: what each of them does to weights and tokens, in the hooks of `repro.methods.base`."""
