"""What sharing schemes cost: parameters, time of a forward and of a training step, memory.

    python benchmarks/architectures.py [--rounds 9]

A forward is one in evaluation without gradients, of all tasks or of the last one alone; a step is one of
SGD. Memory is that of parameters, their gradients, and what the backward keeps. All schemes stand on an MLP
but `MTAN`, which needs feature maps and stands on a small CNN. A `DSelectK` that is decided has no gate
inputs and runs k experts for a task. Which scheme wins where: ``architecture_problems.py``.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import pairwise

import torch
from _measure import medians
from _table import write_table
from torch import Tensor, nn

from polytask.models import (
    CGC,
    MLP,
    MTAN,
    NDDR,
    PLE,
    CrossStitch,
    DSelectK,
    FiLM,
    HardParameterSharing,
    LearningToBranch,
    LoRA,
    MMoE,
    MultiHead,
    MultiTaskModel,
    RegressionHead,
    Separate,
    Sluice,
    SoftParameterSharing,
)

TASKS = (2, 4, 8)
INPUTS, WIDTH, FEATURES = 128, 256, 128
CHANNELS = (3, 16, 32)
IN_A_ROW = 5
"""Calls that are timed together: the first of them finds the caches as another scheme has left them."""

Build = Callable[[int, int, int, int], MultiTaskModel]
"""From inputs, width, features and the number of tasks to a model."""


def backbone(inputs: int, width: int, features: int) -> MLP:
    return MLP(inputs, [width], features, activate_output=True)


def heads(features: int, tasks: int) -> dict[str, nn.Module]:
    return {f"t{index}": nn.Linear(features, 1) for index in range(tasks)}


def network(inputs: int, width: int, features: int) -> nn.Module:
    return nn.Sequential(backbone(inputs, width, features), nn.Linear(features, 1))


def networks(inputs: int, width: int, features: int, tasks: int) -> dict[str, nn.Module]:
    return {f"t{index}": network(inputs, width, features) for index in range(tasks)}


def tapped(scheme: Callable[..., MultiTaskModel]) -> Build:
    def build(inputs: int, width: int, features: int, tasks: int) -> MultiTaskModel:
        taps = {"layers.activation1": width, "layers.activation2": features}
        return scheme(backbone(inputs, width, features), heads(features, tasks), taps)

    return build


def mixed(scheme: Callable[..., MultiTaskModel]) -> Build:
    """Experts of the backbone's form."""

    def build(inputs: int, width: int, features: int, tasks: int) -> MultiTaskModel:
        return scheme(partial(backbone, inputs, width, features), heads(features, tasks), gate=inputs)

    return build


def ple(inputs: int, width: int, features: int, tasks: int) -> MultiTaskModel:
    layers = [
        partial(MLP, inputs, [], width, activate_output=True),
        partial(MLP, width, [], features, activate_output=True),
    ]
    return PLE(layers, heads(features, tasks), gates=[inputs, width])


def lora(inputs: int, width: int, features: int, tasks: int) -> MultiTaskModel:
    rank = min(4, inputs, width, features)
    targets = ["linear1", "linear2"]
    shared = backbone(inputs, width, features)
    return LoRA(shared, heads(features, tasks), rank, targets, train_backbone=True)


SCHEMES: dict[str, Build] = {
    "HardParameterSharing": lambda i, w, f, t: HardParameterSharing(backbone(i, w, f), heads(f, t)),
    "Separate": lambda i, w, f, t: Separate(networks(i, w, f, t)),
    "SoftParameterSharing": lambda i, w, f, t: SoftParameterSharing(networks(i, w, f, t), 0.01),
    "CrossStitch": tapped(CrossStitch),
    "Sluice": tapped(Sluice),
    "NDDR": tapped(NDDR),
    "MMoE": mixed(partial(MMoE, num_experts=4)),
    "CGC": mixed(CGC),
    "PLE": ple,
    "DSelectK": mixed(partial(DSelectK, num_experts=4, k=2)),
    "FiLM": tapped(FiLM),
    "LoRA": lora,
}


def decided(inputs: int, width: int, features: int, tasks: int) -> MultiTaskModel:
    """Gates without an input, as training leaves them: each task uses k of the experts."""
    expert = partial(backbone, inputs, width, features)
    model = DSelectK(expert, heads(features, tasks), num_experts=4, k=2)
    with torch.no_grad():
        for gate in model.gates.parameters():
            # Far beyond the smooth step; the selectors' own weights begin with 0 and stay there.
            gate.mul_(1e6)
    return model


def convolutions() -> nn.Module:
    stages = [
        nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        for before, after in pairwise(CHANNELS)
    ]
    return nn.Sequential(*stages)


def map_heads(tasks: int) -> dict[str, nn.Module]:
    return {f"t{index}": RegressionHead(CHANNELS[-1]) for index in range(tasks)}


def map_networks(tasks: int) -> dict[str, nn.Module]:
    return {task: nn.Sequential(convolutions(), head) for task, head in map_heads(tasks).items()}


def on_mlp(build: Build) -> Callable[[int], MultiTaskModel]:
    return partial(build, INPUTS, WIDTH, FEATURES)


CASES: dict[str, tuple[tuple[int, ...], dict[str, Callable[[int], MultiTaskModel]]]] = {
    "MLP": (
        (256, INPUTS),
        {
            **{name: on_mlp(build) for name, build in SCHEMES.items()},
            "DSelectK, decided": on_mlp(decided),
            "LearningToBranch": on_mlp(tapped(LearningToBranch)),
        },
    ),
    "CNN": (
        (32, CHANNELS[0], 32, 32),
        {
            "HardParameterSharing": lambda tasks: MultiHead(convolutions(), map_heads(tasks)),
            "Separate": lambda tasks: Separate(map_networks(tasks)),
            "MTAN": lambda tasks: MTAN(
                convolutions(), map_heads(tasks), {"0": CHANNELS[1], "1": CHANNELS[2]}
            ),
        },
    ),
}
"""By backbone the shape of a batch, and by scheme what makes a model of a number of tasks."""


def penalty(model: MultiTaskModel) -> Tensor:
    """What the model adds to the losses."""
    own = getattr(model, "sharing_penalty", None)
    added = None if own is None else own()
    return torch.zeros(()) if added is None else added


def loss_of(model: MultiTaskModel, x: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """The mean squared error of all tasks, and what the model adds."""
    errors = [(output - targets[task]).square().mean() for task, output in model(x).items()]
    return torch.stack(errors).sum() + penalty(model)


def kept_bytes(model: MultiTaskModel, x: Tensor, targets: dict[str, Tensor]) -> int:
    """Bytes of parameters, gradients, and of the tensors that a backward needs."""
    parameters = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, x, targets)
    saved = {place: size for place, size in saved.items() if place not in parameters}
    del loss
    return 2 * sum(parameters.values()) + sum(saved.values())


def cost(kind: str, tasks: int, rounds: int) -> dict[str, list[float]]:
    """By scheme its parameters, seconds of a forward of all tasks, of one and of a step, and bytes."""
    shape, schemes = CASES[kind]
    torch.manual_seed(0)
    x = torch.randn(shape)
    targets = {f"t{index}": torch.randn(shape[0], 1) for index in range(tasks)}
    calls: dict[str, tuple[Callable[[], object], int]] = {}
    found: dict[str, list[float]] = {}
    for name, build in schemes.items():
        model = build(tasks)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def step(model: MultiTaskModel = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            loss_of(model, x, targets).backward()
            optimizer.step()

        forward = torch.no_grad()(deepcopy(model).eval())
        timed = {"all": partial(forward, x), "one": partial(forward, x, tasks - 1), "step": step}
        calls |= {f"{name} {call}": (what, IN_A_ROW) for call, what in timed.items()}
        found[name] = [sum(p.numel() for p in model.parameters()), kept_bytes(model, x, targets)]
    times = medians(calls, rounds)
    return {
        name: [size, *(times[f"{name} {call}"] for call in ("all", "one", "step")), memory]
        for name, (size, memory) in found.items()
    }


def cost_rows(rounds: int) -> list[list[str]]:
    rows = []
    for kind in CASES:
        for tasks in TASKS:
            found = cost(kind, tasks, rounds)
            hard, separate = found["HardParameterSharing"], found["Separate"]
            for name, values in found.items():
                ratios = [
                    f"{value / base:.2f} ({value / other:.2f})"
                    for value, base, other in zip(values, hard, separate, strict=True)
                ]
                rows.append([kind, str(tasks), name, f"{values[0]:,}", *ratios])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    write_table(
        "architectures",
        f"Cost relative to hard sharing (to separate networks): MLP {INPUTS}-{WIDTH}-{FEATURES} with batches "
        f"of 256; for MTAN a CNN with stages of {CHANNELS[1]} and {CHANNELS[2]} channels, 32 images of "
        f"32 x 32; median of {rounds} interleaved rounds of {IN_A_ROW}",
        ["backbone", "T", "scheme", "parameters", "relative", "forward", "one task", "step", "memory"],
        cost_rows(rounds),
    )


if __name__ == "__main__":
    main()
