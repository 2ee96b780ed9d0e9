"""Parameters and MACs of a backbone, and of a method applied to it, in closed form. Does not import torch."""
