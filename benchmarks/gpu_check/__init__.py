"""What only a GPU can tell; run by `scripts/gpu_check`, on torch, torchvision and timm alone."""
