"""Time per image and training throughput, measured on the device at hand."""
