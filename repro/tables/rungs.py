"""The rungs of the ladder of evidence (docs/evidence.md), from counted costs to the published training."""

COUNTED = "counted"
LOCAL = "local"
MINI = "mini"
WEIGHTS = "weights"
PAPER = "paper"
RUNGS = {
    COUNTED: "Params and MACs of the published backbones: repro report",
    LOCAL: "small models on embedded data",
    MINI: "the published backbones on small images",
    WEIGHTS: "weights of each row that others have trained: repro adopt",
    PAPER: "the published training",
}  # what each rung requires
TRAINED = (LOCAL, MINI, PAPER)  # rungs that are scales
