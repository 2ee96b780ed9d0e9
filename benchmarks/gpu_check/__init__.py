"""The checks that need a GPU; `scripts/gpu_check` runs them with only torch, torchvision and timm installed."""
