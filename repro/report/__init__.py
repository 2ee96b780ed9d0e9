"""Tables, figures and verdicts from run records. Does not import torch."""
