"""Every public method once, one list per kind; the suites in ``contracts`` run over these lists."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torchjd import aggregation

from polytask.models import (
    CGC,
    MLP,
    MTAN,
    NDDR,
    PLE,
    ClassificationHead,
    CrossStitch,
    DenseHead,
    DSelectK,
    FiLM,
    HardParameterSharing,
    LearningToBranch,
    LoRA,
    MMoE,
    MultiHead,
    MultiInput,
    MultiLabelHead,
    OrdinalHead,
    RegressionHead,
    Separate,
    SimpleCNN,
    Sluice,
    SoftParameterSharing,
    TaskHead,
    TokenHead,
    create_hard_sharing_model,
    create_soft_sharing_model,
)
from polytask.weighting import (
    CRMOGM,
    DBMTL,
    DWA,
    FAMO,
    GLS,
    IMTLG,
    IMTLL,
    MGDA,
    RLW,
    STCH,
    UW,
    UWSO,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    Equal,
    ExcessMTL,
    FairGrad,
    Fixed,
    GradDrop,
    GradNorm,
    GradVac,
    MoCo,
    MoDo,
    NashMTL,
    PCGrad,
    SDMGrad,
    TorchJDAggregator,
    TorchJDWeighting,
    UPGrad,
    UWRevised,
    Weighting,
)


@dataclass(frozen=True)
class Case:
    """A public name, and how to build it small. What follows a dash in the name tells variants apart."""

    name: str
    build: Callable[[], Any]

    @property
    def method(self) -> str:
        return self.name.partition("-")[0]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ModelCase(Case):
    """A model or a part of one, the shape of one sample, and the shape of what it makes of it.

    ``outputs`` is a dict by task for a model and a single shape for a part. ``varies`` is whether its
    outputs in training depend on chance or on the other rows. ``exchanged`` matches the parameters that are
    kept by task and that other tasks use as well, ``idle`` those that cannot change anything: the gate of a
    single expert.
    """

    sample: tuple[int, ...]
    outputs: Any
    varies: bool = False
    exchanged: str = r"(?!)"
    idle: str = r"(?!)"


@dataclass(frozen=True)
class WeightingCase(Case):
    """A weighting for the tasks `TASKS`."""


@dataclass(frozen=True)
class LossCase(WeightingCase):
    """A weighting that is given losses.

    ``total`` is what its effective weights sum to, where that is fixed; ``task_order`` whether tasks may
    change places without a change of the result; ``steady`` whether the weights are the same for all
    batches of an accumulation window.
    """

    total: str | None = None
    task_order: bool = True
    steady: bool = True


@dataclass(frozen=True)
class GramianCase(WeightingCase):
    """A weighting that is given the Gramian.

    ``homogeneous`` is whether gradients twice as long make an update twice as long; ``ordered``
    whether the order of the tasks may matter; ``harmless`` whether no task gets worse; ``waits``
    whether it reads values on the host as it likes, which only another package's solver may.
    """

    homogeneous: bool = True
    ordered: bool = False
    harmless: bool = False
    waits: bool = False


class TupleBackbone(nn.Module):
    """Returns two representations of different size, as a backbone with feature maps does."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Linear(12, 6), nn.Linear(12, 3)

    def forward(self, x):
        return self.fine(x), {"coarse": self.coarse(x)}


class TupleHead(nn.Module):
    """Reads both representations."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Linear(6, outputs), nn.Linear(3, outputs)

    def forward(self, representation):
        fine, rest = representation
        return self.fine(fine) + self.coarse(rest["coarse"])


class SplitInput(MultiInput):
    """Makes named inputs of one, so that it can be called as other models are."""

    def represent(self, x, tasks=None):
        return super().represent({"type": x[..., :6], "right.side": x[..., 6:]}, tasks)


DICT_OUTPUTS = {"type": (3,), "keys": (2,), "forward": (1,)}
LIST_OUTPUTS = {"task0": (3,), "task1": (2,), "task2": (1,)}
SIZES = (3, 2, 1)


def _heads(features: int) -> dict[str, nn.Module]:
    return {
        "type": TaskHead(features, 3, hidden_dims=[5]),
        "keys": TaskHead(features, 2, hidden_dims=[5, 4], activation=nn.GELU()),
        "forward": nn.Linear(features, 1),
    }


EXPERT = partial(MLP, 12, [7], 6)


class Two(nn.Module):
    """The first two values of each sample."""

    def forward(self, x):
        return x.flatten(1)[:, :2]


def _moved(model: nn.Module) -> nn.Module:
    """Adapters and modulations begin as no change at all: this is some steps later."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


CONDITIONED = [
    ModelCase(
        "FiLM",
        lambda: _moved(FiLM(MLP(12, [7], 6), _heads(6), {"layers.linear1": 7, "layers": 6})),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "FiLM-images",
        lambda: _moved(FiLM(SimpleCNN(2, 6, 4), _heads(6), {"features.2": 32, "features.3": 64})),
        (2, 4, 4),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "LoRA",
        lambda: _moved(
            LoRA(MLP(12, [7], 6), _heads(6), 2, ["linear1", "layers.linear2"], alpha=4.0, train_backbone=True)
        ),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "LoRA-images",
        lambda: _moved(
            LoRA(SimpleCNN(2, 6, 4), _heads(6), 3, ["features.0", "classifier.0"], train_backbone=True)
        ),
        (2, 4, 4),
        DICT_OUTPUTS,
    ),
]

EXPERTS = [
    ModelCase("MMoE", lambda: MMoE(EXPERT, _heads(6), gate=12, num_experts=3), (12,), DICT_OUTPUTS),
    ModelCase(
        "MMoE-images",
        lambda: MMoE(
            partial(SimpleCNN, 2, 6, 4), _heads(6), partial(MLP, 2, [3]), num_experts=2, gate_input=Two()
        ),
        (2, 4, 4),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "MMoE-list",
        lambda: MMoE(EXPERT, [TaskHead(6, size) for size in SIZES], gate=12, num_experts=2),
        (12,),
        LIST_OUTPUTS,
    ),
    ModelCase(
        "CGC",
        lambda: CGC(
            EXPERT, _heads(6), 12, shared_experts=2, task_experts={"type": 2, "keys": 1, "forward": 0}
        ),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "CGC-separate",
        lambda: CGC(EXPERT, _heads(6), 12, shared_experts=0),
        (12,),
        DICT_OUTPUTS,
        idle=r"level\.gates",
    ),
    ModelCase(
        "PLE",
        lambda: PLE([EXPERT, partial(MLP, 6, [], 6), partial(MLP, 6, [], 6)], _heads(6), [12, 6, 6]),
        (12,),
        DICT_OUTPUTS,
        exchanged=r"levels\.(0\.(own|gates)|1\.own)",
    ),
    ModelCase(
        "PLE-gate_input",
        lambda: PLE([EXPERT, partial(MLP, 6, [], 6)], _heads(6), [2, 2], gate_input=Two()),
        (12,),
        DICT_OUTPUTS,
        exchanged=r"levels\.0\.own",
    ),
    ModelCase("DSelectK", lambda: DSelectK(EXPERT, _heads(6), num_experts=5, k=2), (12,), DICT_OUTPUTS),
    ModelCase(
        "DSelectK-gate",
        lambda: DSelectK(EXPERT, _heads(6), num_experts=4, k=3, gate=12),
        (12,),
        DICT_OUTPUTS,
    ),
]


def _trunk() -> nn.Module:
    return SimpleCNN(2, 6, 8).features


TOWERS = [
    ModelCase(
        "CrossStitch",
        lambda: CrossStitch(MLP(12, [7, 7], 6), _heads(6), ["layers.activation1", "layers.linear2"]),
        (12,),
        DICT_OUTPUTS,
        exchanged=r"backbones\.\w+\.layers\.linear[12]",
    ),
    ModelCase(
        "CrossStitch-channels",
        lambda: CrossStitch(SimpleCNN(2, 6, 4), _heads(6), {"features.2": 32, "features.5": 64}),
        (2, 4, 4),
        DICT_OUTPUTS,
        exchanged=r"backbones\.\w+\.features",
    ),
    ModelCase(
        "CrossStitch-list",
        lambda: CrossStitch(
            {f"task{number}": MLP(12, [4], 6) for number in range(3)},
            [TaskHead(6, size) for size in SIZES],
            ["layers.activation1"],
        ),
        (12,),
        LIST_OUTPUTS,
        exchanged=r"backbones\.\w+\.layers\.linear1",
    ),
    ModelCase(
        "Sluice",
        lambda: Sluice(
            MLP(12, [6], 6), _heads(6), ["layers.linear1", "layers.linear2"], subspaces=3, orthogonality=0.1
        ),
        (12,),
        DICT_OUTPUTS,
        exchanged=r"backbones",
    ),
    ModelCase(
        "Sluice-mix_layers",
        lambda: Sluice(
            MLP(12, [6], 6, activate_output=True),
            _heads(6),
            ["layers.activation1", "layers.activation2"],
            mix_layers=True,
        ),
        (12,),
        DICT_OUTPUTS,
        exchanged=r"backbones",
    ),
    ModelCase(
        "NDDR",
        lambda: NDDR(MLP(12, [7, 5], 6), _heads(6), {"layers.activation1": 7, "layers.activation2": 5}),
        (12,),
        DICT_OUTPUTS,
        varies=True,
        exchanged=r"backbones\.\w+\.layers\.linear[12]|units\.0",
    ),
    ModelCase(
        "NDDR-images",
        lambda: NDDR(SimpleCNN(2, 6, 4), _heads(6), {"features.2": 32, "features.5": 64}, norm=False),
        (2, 4, 4),
        DICT_OUTPUTS,
        exchanged=r"backbones\.\w+\.features|units\.0",
    ),
    ModelCase(
        "LearningToBranch",
        lambda: LearningToBranch(
            {task: MLP(12, [7, 7], 6) for task in DICT_OUTPUTS},
            _heads(6),
            ["layers.activation1", "layers.activation2"],
        ),
        (12,),
        DICT_OUTPUTS,
        varies=True,
        exchanged=r"backbones\.\w+\.layers\.linear[12]",
    ),
    ModelCase(
        "MTAN",
        lambda: MTAN(
            _trunk(),
            {task: ClassificationHead(64, *shape) for task, shape in DICT_OUTPUTS.items()},
            {"2": 32, "3": 64},
        ),
        (2, 8, 8),
        DICT_OUTPUTS,
        varies=True,
    ),
    ModelCase(
        "MTAN-maps",
        lambda: MTAN(
            _trunk(), [DenseHead(64, size, size=6) for size in SIZES], {"0": 32, "3": 64}, norm=False
        ),
        (2, 8, 8),
        {task: (*shape, 6, 6) for task, shape in LIST_OUTPUTS.items()},
    ),
]

SEPARATE = [
    ModelCase(
        "SoftParameterSharing",
        lambda: SoftParameterSharing({task: MLP(12, [4], *shape) for task, shape in DICT_OUTPUTS.items()}),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "SoftParameterSharing-list",
        lambda: SoftParameterSharing(
            [SimpleCNN(2, size, 4) for size in SIZES], 0.1, [["task0", "task2"]], penalty="trace_norm"
        ),
        (2, 4, 4),
        LIST_OUTPUTS,
    ),
    ModelCase(
        "create_soft_sharing_model",
        lambda: create_soft_sharing_model(
            12, {task: {"output_dim": size, "hidden_dims": [5]} for task, (size,) in DICT_OUTPUTS.items()}
        ),
        (3, 4),
        DICT_OUTPUTS,
    ),
]

MODELS = [
    ModelCase(
        "HardParameterSharing",
        lambda: HardParameterSharing(MLP(12, [7], 6), _heads(6)),
        (3, 4),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "HardParameterSharing-shared_head",
        lambda: HardParameterSharing(MLP(12, [7], 6), _heads(5), shared_head_dim=5),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "HardParameterSharing-list",
        lambda: HardParameterSharing(MLP(12, [7], 6), [TaskHead(6, size) for size in SIZES]),
        (12,),
        LIST_OUTPUTS,
    ),
    ModelCase(
        "HardParameterSharing-images",
        lambda: HardParameterSharing(SimpleCNN(2, 6, 8), _heads(6)),
        (2, 8, 8),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "create_hard_sharing_model",
        lambda: create_hard_sharing_model(
            MLP(12, [7], 6),
            {
                "type": {"output_dim": 3, "hidden_dims": [5]},
                "keys": {"output_dim": 2, "activation": nn.Tanh},
                "forward": {"output_dim": 1},
            },
            shared_head_dim=5,
        ),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "MultiHead",
        lambda: MultiHead(TupleBackbone(), {task: TupleHead(*shape) for task, shape in DICT_OUTPUTS.items()}),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "MultiHead-list",
        lambda: MultiHead(SimpleCNN(2, 6, 4), [nn.Linear(6, size) for size in SIZES]),
        (2, 4, 4),
        LIST_OUTPUTS,
    ),
    ModelCase(
        "MultiInput",
        lambda: SplitInput(
            {"type": MLP(6, [5], 4), "right.side": nn.Linear(6, 3)}, _heads(7), shared=nn.Linear(7, 7)
        ),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "MultiInput-one_encoder",
        lambda: SplitInput(
            dict.fromkeys(["type", "right.side"], MLP(6, [5], 4)),
            [nn.Linear(4, size) for size in SIZES],
            fusion="sum",
        ),
        (12,),
        LIST_OUTPUTS,
    ),
    ModelCase(
        "Separate",
        lambda: Separate({task: MLP(12, [4], *shape) for task, shape in DICT_OUTPUTS.items()}),
        (12,),
        DICT_OUTPUTS,
    ),
    ModelCase(
        "Separate-list",
        lambda: Separate([SimpleCNN(2, size, 4) for size in SIZES]),
        (2, 4, 4),
        LIST_OUTPUTS,
    ),
    *EXPERTS,
    *TOWERS,
    *SEPARATE,
    *CONDITIONED,
]

PARTS = [
    ModelCase("MLP", lambda: MLP(12, [7, 5], 3), (12,), (3,)),
    ModelCase(
        "MLP-images", lambda: MLP(12, [], 3, activation=nn.GELU, activate_output=True), (3, 2, 2), (3,)
    ),
    ModelCase("SimpleCNN", lambda: SimpleCNN(2, 3, 8), (2, 8, 8), (3,)),
    ModelCase("SimpleCNN-oblong", lambda: SimpleCNN(1, 3, (7, 12)), (1, 7, 12), (3,)),
    ModelCase("TaskHead", lambda: TaskHead(12, 3), (12,), (3,)),
    ModelCase("TaskHead-tokens", lambda: TaskHead(6, 3, [5], nn.PReLU()), (4, 6), (4, 3)),
    ModelCase("ClassificationHead", lambda: ClassificationHead(12, 3, [5]), (12,), (3,)),
    ModelCase("ClassificationHead-maps", lambda: ClassificationHead(6, 3), (6, 4, 5), (3,)),
    ModelCase("RegressionHead", lambda: RegressionHead(12), (12,), (1,)),
    ModelCase("RegressionHead-bounds", lambda: RegressionHead(12, 2, low=-1.0, high=3.0), (12,), (2,)),
    ModelCase("MultiLabelHead", lambda: MultiLabelHead(12, 3, prior=0.1), (12,), (3,)),
    ModelCase("OrdinalHead", lambda: OrdinalHead(12, 4, [5]), (12,), (4,)),
    ModelCase("OrdinalHead-two", lambda: OrdinalHead(6, 2), (6, 4, 5), (2,)),
    ModelCase("DenseHead", lambda: DenseHead(6, 3, [5], size=(9, 7)), (6, 4, 5), (3, 9, 7)),
    ModelCase("DenseHead-scale", lambda: DenseHead(6, 3, scale=2, mode="nearest"), (6, 4, 5), (3, 8, 10)),
    ModelCase("TokenHead", lambda: TokenHead(6, 3, [5]), (4, 6), (3, 4)),
]

# No module, or a backbone of a package that is not among the requirements: tested in files of their own.
NO_CASE = {"ExpertLoad", "HuggingFaceEncoder", "TimmBackbone", "TorchvisionBackbone"}

TASKS = ("a", "b", "c")

LOSS_WEIGHTINGS = [
    LossCase("Equal", Equal, "tasks"),
    LossCase("Fixed", lambda: Fixed({"a": 1.0, "b": 0.5, "c": 2.0}), task_order=False),
    LossCase("UW", lambda: UW({"a": "classification"}), task_order=False),
    LossCase("UWRevised", UWRevised),
    LossCase("UWSO", lambda: UWSO(temperature=0.5), "one", steady=False),
    LossCase("DWA", DWA, "tasks"),
    LossCase("RLW", lambda: RLW(seed=0), "tasks", task_order=False, steady=False),
    LossCase("GLS", GLS, steady=False),
    LossCase("IMTLL", IMTLL),
    LossCase("FAMO", FAMO, "one", steady=False),
    LossCase("STCH", STCH, steady=False),
]
GRAMIAN_WEIGHTINGS = [
    GramianCase("MGDA", MGDA, harmless=True),
    GramianCase("MGDA-norm", lambda: MGDA("norm")),
    GramianCase("MGDA-loss", lambda: MGDA("loss")),
    GramianCase("MGDA-loss_norm", lambda: MGDA("loss_norm")),
    GramianCase("PCGrad", lambda: PCGrad(seed=0), ordered=True),
    GramianCase("GradVac", lambda: GradVac(beta=0.3, seed=0), ordered=True),
    GramianCase("CAGrad", CAGrad),
    GramianCase("CAGrad-rescale", lambda: CAGrad(c=0.9, rescale=True)),
    GramianCase("IMTLG", IMTLG, harmless=True),
    GramianCase("NashMTL", NashMTL, homogeneous=False, harmless=True),
    GramianCase("NashMTL-uncut", lambda: NashMTL(max_norm=None), homogeneous=False, harmless=True),
    GramianCase("AlignedMTL", AlignedMTL),
    GramianCase("AlignedMTL-median", lambda: AlignedMTL("median")),
    GramianCase("AlignedMTL-mean", lambda: AlignedMTL("mean")),
    GramianCase("FairGrad", FairGrad, homogeneous=False, harmless=True),
    GramianCase("FairGrad-2", lambda: FairGrad(alpha=2.0), homogeneous=False, harmless=True),
    GramianCase("UPGrad", UPGrad, harmless=True),
    GramianCase("DualProj", DualProj, harmless=True),
    GramianCase("ConFIG", ConFIG, harmless=True),
    GramianCase("GradNorm", lambda: GradNorm(lr=0.1)),
    GramianCase("CRMOGM", lambda: CRMOGM(MGDA(), decay=0.5)),
    GramianCase("CRMOGM-GradNorm", lambda: CRMOGM(GradNorm(lr=0.1), decay=0.5)),
    GramianCase("CRMOGM-PCGrad", lambda: CRMOGM(PCGrad(seed=0)), ordered=True),
    GramianCase("MoDo", lambda: MoDo(step_size=0.05), homogeneous=False),
    GramianCase("SDMGrad", SDMGrad),
    GramianCase(
        "TorchJDWeighting", lambda: TorchJDWeighting(aggregation.UPGrad()), homogeneous=False, waits=True
    ),
    GramianCase(
        "TorchJDWeighting-PCGrad",
        lambda: TorchJDWeighting(aggregation.PCGradWeighting(), seed=0),
        ordered=True,
        waits=True,
    ),
]
AGGREGATORS = [
    WeightingCase("GradDrop", lambda: GradDrop(seed=0)),
    WeightingCase("MoCo", MoCo),
    WeightingCase("DBMTL", DBMTL),
    WeightingCase("ExcessMTL", ExcessMTL),
    WeightingCase("TorchJDAggregator", lambda: TorchJDAggregator(aggregation.GradDrop(), seed=0)),
]
WEIGHTINGS = [*LOSS_WEIGHTINGS, *GRAMIAN_WEIGHTINGS, *AGGREGATORS]


def named(case: WeightingCase, names: tuple[str, ...] = TASKS) -> Weighting:
    """The weighting, with its tasks."""
    weighting = case.build()
    weighting.setup(names)
    return weighting


def frozen(weighting: torch.nn.Module) -> bytes:
    """The whole state as bytes, for comparison bit by bit."""
    return pickle.dumps({name: value.tolist() for name, value in weighting.state_dict().items()})
