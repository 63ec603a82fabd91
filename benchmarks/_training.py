"""Trains a small network with one weighting through the engine, as people with a loop of their own do."""

from collections.abc import Iterator, Mapping

import torch
from _toys import Make
from torch import Tensor, nn

from polytask.gradients import Engine
from polytask.weighting import LossWeighting

Batch = tuple[Tensor, Mapping[str, Tensor]]


def squared(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean squared error of each task."""
    return {task: nn.functional.mse_loss(output, targets[task]) for task, output in outputs.items()}


class Training:
    """A model and a weighting, with Adam on what both learn."""

    def __init__(self, model: nn.Module, make: Make, tasks: list[str], lr: float = 1e-3) -> None:
        self.model, self.weighting = model, make()
        self.weighting.setup(tasks)
        self.weighting.deferred = True
        self.engine = Engine(model, self.weighting)
        # The hooks are called here.
        self.engine.own_loop = None
        self.optimizer = torch.optim.Adam([*model.parameters(), *self.weighting.parameters()], lr=lr)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of the model as it is."""
        inputs, targets = batch
        return squared(self.model(inputs), targets)

    def step(self, batches: Iterator[Batch]) -> Tensor:
        """One step of the optimizer; the losses before it, ``(tasks,)``."""
        self.optimizer.zero_grad()
        for _ in range(self.weighting.batches_per_step):
            batch = next(batches)
            losses = self.losses(batch)
            self.engine.backward(losses)
        self.optimizer.step()
        before = after = torch.stack([loss.detach() for loss in losses.values()])
        if self.weighting.remeasures:
            with torch.no_grad():
                after = torch.stack(list(self.losses(batch).values()))
        self.weighting.after_step(after)
        return before

    def run(self, batches: Iterator[Batch], steps: int, epoch: int) -> Tensor:
        """The losses before each step, ``(steps, tasks)``."""
        seen = []
        for number in range(1, steps + 1):
            seen.append(self.step(batches))
            if number % epoch == 0:
                self.weighting.on_epoch_end(torch.stack(seen[-epoch:]).mean(0))
        return torch.stack(seen)

    def weights(self, losses: Tensor) -> Tensor:
        """The weights in use, ``(tasks,)``; NaN for a method that makes an update without weights."""
        if isinstance(self.weighting, LossWeighting):
            return self.weighting.weights(losses).detach()
        return torch.tensor(
            [float(self.engine.weights.get(name, torch.nan)) for name in self.weighting.names]
        )
