from torch import nn


class MultiTaskLoss(nn.Module):
    """A dict with each task's loss, and their weighted total."""

    def __init__(self, losses, weights):
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.weights = weights

    def forward(self, outputs, targets):
        found = {name: loss(outputs[name], targets[name]) for name, loss in self.losses.items()}
        found["total"] = sum(self.weights.get(name, 1.0) * loss for name, loss in found.items())
        return found
