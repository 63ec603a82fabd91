"""What a step with each kind of weighting costs, in plain steps, next to TorchJD and LibMTL.

One process, one thread, variants interleaved, medians of the rounds; on a GPU where there is one. A plain
step is forward, sum of the losses and backward. TorchJD is shown at the better of its two settings (all tasks
at once, one after another), LibMTL with PCGrad, the nearest of its methods, each where it can be imported.
Peak memory is that of a process of its own, above what it had before the step. ``results/growth.svg`` is
drawn where matplotlib is there.

    python benchmarks/weighting.py [--rounds 9] [--only exact cheap losses solver growth memory]
"""

import argparse
import functools
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch
from _measure import DEVICE, medians, peak
from _table import RESULTS, write_table
from torch import Tensor, nn

from polytask import weighting as weightings
from polytask.gradients import Engine
from polytask.models import MLP, MultiHead
from polytask.weighting import GramianWeighting, LossWeighting, UPGrad

TORCHJD = find_spec("torchjd") is not None
HEADER = ["case", "polytask", "ms", "compared with", "aim"]


def why_not(module: str) -> str | None:
    """Why a package cannot be imported; None where it can."""
    try:
        import_module(module)
    except ImportError as error:
        return str(error)
    return None


LIBMTL = why_not("LibMTL.weighting")


class Case:
    """A backbone, its inputs and a number of tasks; every variant trains a model of its own."""

    def __init__(
        self, name: str, backbone: Callable[[], nn.Module], x: Tensor, width: int, tasks: int
    ) -> None:
        self.name, self.backbone, self.x, self.width = f"{name}, T = {tasks}", backbone, x.to(DEVICE), width
        self.names = [f"task{i}" for i in range(tasks)]
        self.targets = torch.randn(tasks, len(x), 1, device=DEVICE)

    def model(self) -> MultiHead:
        torch.manual_seed(0)
        heads = {name: nn.Linear(self.width, 1) for name in self.names}
        return MultiHead(self.backbone(), heads).to(DEVICE)

    def losses(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: nn.functional.mse_loss(outputs[name], target)
            for name, target in zip(self.names, self.targets, strict=True)
        }

    def plain(self) -> Callable[[], None]:
        model = self.model()

        def step() -> None:
            model.zero_grad()
            torch.stack(list(self.losses(model(self.x)).values())).sum().backward()

        return step

    def engine(self, weighting: weightings.Weighting, **options: object) -> Callable[[], None]:
        model = self.model()
        weighting.setup(self.names)
        weighting.to(DEVICE)
        engine = Engine(model, weighting, **options)  # type: ignore[arg-type]
        engine.own_loop = None

        def step() -> None:
            model.zero_grad()
            losses = self.losses(model(self.x))
            engine.backward(losses)
            if weighting.remeasures:
                with torch.no_grad():
                    losses = self.losses(model(self.x))
            weighting.after_step(torch.stack([loss.detach() for loss in losses.values()]))

        return step

    def torchjd(self, chunk: int | None) -> Callable[[], None]:
        from torchjd.aggregation import UPGrad as Theirs
        from torchjd.autojac import jac_to_grad, mtl_backward

        model, aggregator = self.model(), Theirs()
        shared = list(model.backbone.parameters())

        def step() -> None:
            model.zero_grad()
            features = model.represent(self.x)
            outputs = {name: head(features) for name, head in model.heads.items()}
            losses = list(self.losses(outputs).values())
            mtl_backward(losses, features=features, parallel_chunk_size=chunk)
            jac_to_grad(shared, aggregator)

        return step

    def libmtl(self) -> Callable[[], None]:
        from LibMTL.weighting import PCGrad

        model, theirs = self.model(), PCGrad()
        shared = list(model.backbone.parameters())
        theirs.task_num, theirs.device, theirs.rep_grad = len(self.names), DEVICE, False
        theirs.get_share_params = lambda: shared
        theirs.zero_grad_share_params = lambda: model.backbone.zero_grad(set_to_none=False)

        def step() -> None:
            model.zero_grad()
            theirs.backward(list(self.losses(model(self.x)).values()))

        return step

    def theirs(self) -> dict[str, tuple[Callable[[], object], int]]:
        """The peers that are there."""
        found: dict[str, tuple[Callable[[], object], int]] = {}
        if TORCHJD:
            found |= {"all": (self.torchjd(None), 1), "each": (self.torchjd(1), 1)}
        if LIBMTL is None:
            found["LibMTL"] = (self.libmtl(), 1)
        return found


def cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def late_cnn() -> nn.Module:
    """What a residual network ends with: many channels at few positions."""
    layers = [part for _ in range(2) for part in (nn.Conv2d(256, 256, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(20000, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layer(self.table(x).mean(1)).relu()
        return features


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.encoder(x)
        return features.mean(1)


def mlp(width: int, batch: int, tasks: int) -> Case:
    name = f"MLP {width}x4, batch {batch}"
    return Case(name, lambda: MLP(width, [width] * 3, width), torch.randn(batch, width), width, tasks)


def row(case: str, ratio: float, seconds: float | None, aim: str, beside: str = "") -> list[str]:
    cells = [case, f"{ratio:.2f}", "" if seconds is None else f"{1000 * seconds:.1f}", beside, aim]
    print(*cells, flush=True)
    return cells


def losses_rows(rounds: int) -> list[list[str]]:
    case = mlp(512, 128, 3)
    methods = {
        name: getattr(weightings, name)
        for name in weightings.__all__
        if issubclass(getattr(weightings, name), LossWeighting) and name not in ("LossWeighting", "Fixed")
    }
    variants = {name: (case.engine(method()), 3) for name, method in methods.items()}
    found = medians({"plain": (case.plain(), 3), **variants}, rounds)
    plain = found.pop("plain")
    return [
        row(f"{name}, {case.name}", seconds / plain, seconds, "1.5" if name == "FAMO" else "1.05")
        for name, seconds in found.items()
    ]


def exact_rows(rounds: int) -> list[list[str]]:
    images, tokens = torch.randn(64, 3, 32, 32), torch.randn(32, 16, 64)
    maps, words = torch.randn(32, 256, 4, 4), torch.randint(20000, (64, 32))
    cases = [
        (mlp(512, 128, 3), 1.0),
        (mlp(512, 128, 20), 0.55),
        (mlp(1024, 32, 20), 0.3),
        (Case("CNN 32-64-128, batch 64", cnn, images, 128, 3), 1.0),
        (Case("CNN 32-64-128, batch 64", cnn, images, 128, 8), 1.0),
        (Case("Transformer 64x2, 32x16 tokens", Transformer, tokens, 64, 8), 1.0),
        (Case("CNN 256-256 at 4x4, batch 32", late_cnn, maps, 256, 8), 1.0),
        (Case("embedding 20000x64, 64x32 tokens", Words, words, 64, 8), 1.0),
    ]
    rows = []
    for case, aim in cases:
        variants = {"plain": (case.plain(), 1), "ours": (case.engine(UPGrad()), 1), **case.theirs()}
        found = medians(variants, rounds)
        plain, ours = found.pop("plain"), found.pop("ours")
        peers = {"TorchJD": min((found[name] for name in ("all", "each") if name in found), default=None)}
        peers["LibMTL"] = found.get("LibMTL")
        known = {name: seconds for name, seconds in peers.items() if seconds is not None}
        beside = ", ".join(f"{name} {t / plain:.2f} ({ours / t:.2f} of it)" for name, t in known.items())
        rows.append(row(f"UPGrad, {case.name}", ours / plain, ours, f"{aim:.2f} of TorchJD", beside))
    return rows


def cheap_rows(rounds: int) -> list[list[str]]:
    rows = []
    for tasks, aim in ((3, "1.15"), (20, "1.6")):
        case = mlp(512, 128, tasks)
        variants = {
            "plain": (case.plain(), 10),
            "representation": (case.engine(UPGrad(), level="representation"), 10),
            "refresh_every=10": (case.engine(UPGrad(), refresh_every=10), 10),
        }
        found = medians(variants, rounds)
        plain = found.pop("plain")
        aims = {"representation": aim, "refresh_every=10": "1.8"}
        rows += [
            row(f"{name}, {case.name}", seconds / plain, seconds, aims[name])
            for name, seconds in found.items()
        ]
    return rows


def solver_rows(rounds: int) -> list[list[str]]:
    """The share of the step that weights take, with the Gramian at hand."""
    # They wrap another method.
    skipped = ("GramianWeighting", "CRMOGM", "TorchJDWeighting")
    rows = []
    for tasks in (3, 20, 40):
        case = mlp(512, 128, tasks)
        jacobian = torch.randn(tasks, 4 * tasks)
        gramian, losses = (jacobian @ jacobian.mT).to(DEVICE), torch.rand(tasks, device=DEVICE)
        variants: dict[str, tuple[Callable[[], object], int]] = {"step": (case.engine(UPGrad()), 1)}
        for name in weightings.__all__:
            method = getattr(weightings, name)
            if issubclass(method, GramianWeighting) and name not in skipped:
                variants[name] = (functools.partial(method(), gramian, losses=losses), 3)
        found = medians(variants, rounds)
        step = found.pop("step")
        worst = max(found, key=lambda name: found[name])
        shares = ", ".join(f"{name} {100 * seconds / step:.1f} %" for name, seconds in found.items())
        name = f"solver share of the step, worst ({worst}), T = {tasks}"
        rows.append(row(name, found[worst] / step, found[worst], "0.10", shares))
    return rows


def growth_rows(rounds: int) -> list[list[str]]:
    counts = (2, 4, 8, 16, 32, 64, 128)
    lines: dict[str, list[float]] = {"plain": [], "polytask": [], **({"TorchJD": []} if TORCHJD else {})}
    rows = []
    for count in counts:
        case = mlp(512, 32, count)
        variants = {"plain": (case.plain(), 1), "polytask": (case.engine(UPGrad()), 1)}
        if TORCHJD:
            variants["TorchJD"] = (case.torchjd(1), 1)
        found = medians(variants, rounds)
        for name, line in lines.items():
            line.append(found[name])
        ours = lines["polytask"]
        beside = f"{ours[-1] / ours[0]:.1f} times T = 2"
        rows.append(row(f"UPGrad, {case.name}", ours[-1] / found["plain"], ours[-1], "linear", beside))
    draw(counts, lines)
    return rows


def draw(counts: tuple[int, ...], lines: dict[str, list[float]]) -> None:
    """Keep a picture of how steps grow with the number of tasks."""
    missing = why_not("matplotlib.figure")
    if missing is not None:
        print(f"growth.svg was not drawn: {missing}", flush=True)
        return
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure((5, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="tasks", ylabel="milliseconds for a step")
    axes.set_title("UPGrad, MLP 512x4, batch 32")
    for name, seconds in lines.items():
        axes.loglog(counts, [1000 * value for value in seconds], marker="o", label=name)
    first = 1000 * lines["polytask"][0]
    axes.loglog(counts, [first * count / 2 for count in counts], "--", color="grey", label="linear")
    axes.set_xticks(counts, [str(count) for count in counts], minor=False)
    axes.legend()
    with rc_context({"svg.hashsalt": "growth"}):
        figure.savefig(RESULTS / "growth.svg", metadata={"Date": None})


def memory(variant: str) -> None:
    """Print the peak, in GB, of one step in this process."""
    case = mlp(2048, 64, 20)
    kept = case.model()
    steps = {"plain": case.plain, "ours": lambda: case.engine(UPGrad()), "theirs": lambda: case.torchjd(1)}
    step = steps[variant]()
    before = peak()
    step()
    print(peak() - before)
    del kept


def memory_rows(rounds: int) -> list[list[str]]:
    found = {}
    for variant in ("plain", "ours", *(["theirs"] if TORCHJD else [])):
        command = [sys.executable, __file__, "--memory", variant]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[variant] = float(done.stdout.split()[-1])
    beside = f"plain {found['plain']:.2f} GB" + (f", TorchJD {found['theirs']:.2f} GB" if TORCHJD else "")
    return [
        row("UPGrad, peak memory in GB, MLP 2048x4, batch 64, T = 20", found["ours"], None, "0.35", beside)
    ]


PARTS = {
    "exact": exact_rows,
    "cheap": cheap_rows,
    "losses": losses_rows,
    "solver": solver_rows,
    "growth": growth_rows,
    "memory": memory_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to print, without keeping the table")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if arguments.memory:
        memory(arguments.memory)
        return
    rows = [line for part in arguments.only or PARTS for line in PARTS[part](arguments.rounds)]
    if LIBMTL is not None:
        rows.append(["LibMTL", "", "", f"not importable: {LIBMTL}", ""])
    if arguments.only is None:
        title = f"Time of a step in plain steps (1.00), median of {arguments.rounds} interleaved rounds"
        write_table("weighting", title, HEADER, rows)


if __name__ == "__main__":
    main()
