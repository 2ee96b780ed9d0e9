"""Inference time and training throughput, measured on this machine."""
