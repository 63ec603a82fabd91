"""What sharing schemes cost: parameters, time of a forward and of a training step, memory.

    python benchmarks/architectures.py [--rounds 9]

Memory is that of parameters, their gradients, and what the backward keeps. All on an MLP with T tasks; `MTAN`
needs feature maps and is left to ``multimnist.py``. Which scheme wins where: ``architecture_problems.py``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from _table import write_table
from torch import Tensor, nn

from polytask.models import (
    CGC,
    MLP,
    NDDR,
    PLE,
    CrossStitch,
    DSelectK,
    FiLM,
    HardParameterSharing,
    LoRA,
    MMoE,
    MultiTaskModel,
    Separate,
    Sluice,
    SoftParameterSharing,
)

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


def penalty(model: MultiTaskModel) -> Tensor:
    """What the model adds to the losses."""
    return model.sharing_penalty() if isinstance(model, SoftParameterSharing) else torch.zeros(())


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


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cost(tasks: int, rounds: int) -> dict[str, tuple[float, float, float, float]]:
    """By scheme its parameters, seconds of a forward and of a step, and bytes."""
    inputs, width, features, rows = 128, 256, 128, 256
    torch.manual_seed(0)
    x = torch.randn(rows, inputs)
    targets = {f"t{index}": torch.randn(rows, 1) for index in range(tasks)}
    forwards, steps, fixed = {}, {}, {}
    for name, build in SCHEMES.items():
        model = build(inputs, width, features, tasks)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def step(model: MultiTaskModel = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            loss_of(model, x, targets).backward()
            optimizer.step()

        forwards[name] = torch.no_grad()(partial(model, x))
        steps[name] = step
        fixed[name] = sum(p.numel() for p in model.parameters()), kept_bytes(model, x, targets)
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SCHEMES}
    for _ in range(rounds + 1):
        for name in SCHEMES:
            times[name][0].append(seconds(forwards[name]))
            times[name][1].append(seconds(steps[name]))
    return {
        name: (fixed[name][0], *(statistics.median(part[1:]) for part in times[name]), fixed[name][1])
        for name in SCHEMES
    }


def cost_rows(rounds: int) -> list[list[str]]:
    rows = []
    for tasks in (2, 4, 8):
        found = cost(tasks, rounds)
        hard, separate = found["HardParameterSharing"], found["Separate"]
        for name, values in found.items():
            ratios = [
                f"{value / base:.2f} ({value / other:.2f})"
                for value, base, other in zip(values, hard, separate, strict=True)
            ]
            rows.append([str(tasks), name, f"{values[0]:,}", *ratios])
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
        f"Cost relative to hard sharing (to separate networks), MLP 128-256-128, batch 256, "
        f"median of {rounds} interleaved rounds",
        ["T", "scheme", "parameters", "relative", "forward", "step", "memory"],
        cost_rows(rounds),
    )


if __name__ == "__main__":
    main()
