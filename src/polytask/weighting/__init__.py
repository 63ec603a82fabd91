"""Weightings: ways of balancing tasks, with three bases named by what they receive.

A `LossWeighting` receives the losses and returns one scalar, a `GramianWeighting` receives the Gramian of the
tasks' gradients and returns weights, a `JacobianAggregator` receives the Jacobian and returns the update.
Begin with ``_base``, then with one short method of each kind: ``_equal``, ``_upgrad``, ``_graddrop``. Each
method has a file; ``_state``, ``_task_rows``, ``_shares``, ``_bounded`` and ``_random_stream`` hold what
several of them keep, and ``_catalogue`` makes the table of ``polytask methods`` from the docstrings.

This package uses torch only. A weighting declares which gradients it requires and does not know who computes
them: it knows neither models nor the engine, and nothing of trainers or configs.
"""

from polytask.weighting._aligned_mtl import AlignedMTL
from polytask.weighting._base import (
    GramianSolution,
    GramianStep,
    GramianWeighting,
    JacobianAggregator,
    LossWeighting,
    Weighting,
)
from polytask.weighting._cagrad import CAGrad
from polytask.weighting._conflict_free import ConFIG
from polytask.weighting._cr_mogm import CRMOGM
from polytask.weighting._db_mtl import DBMTL
from polytask.weighting._dualproj import DualProj
from polytask.weighting._dwa import DWA
from polytask.weighting._equal import Equal
from polytask.weighting._excess_mtl import ExcessMTL
from polytask.weighting._fairgrad import FairGrad
from polytask.weighting._famo import FAMO
from polytask.weighting._faults import SolverWarning
from polytask.weighting._fixed import Fixed
from polytask.weighting._gls import GLS
from polytask.weighting._graddrop import GradDrop
from polytask.weighting._gradnorm import GradNorm
from polytask.weighting._gradvac import GradVac
from polytask.weighting._imtl_g import IMTLG
from polytask.weighting._imtl_l import IMTLL
from polytask.weighting._mgda import MGDA
from polytask.weighting._moco import MoCo
from polytask.weighting._modo import MoDo
from polytask.weighting._nash_mtl import NashMTL
from polytask.weighting._pcgrad import PCGrad
from polytask.weighting._rlw import RLW
from polytask.weighting._sdmgrad import SDMGrad
from polytask.weighting._stch import STCH
from polytask.weighting._torchjd import TorchJDAggregator, TorchJDWeighting
from polytask.weighting._upgrad import UPGrad
from polytask.weighting._uw import UW
from polytask.weighting._uw_revised import UWRevised
from polytask.weighting._uwso import UWSO

__all__ = [
    "CRMOGM",
    "DBMTL",
    "DWA",
    "FAMO",
    "GLS",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "RLW",
    "STCH",
    "UW",
    "UWSO",
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "Equal",
    "ExcessMTL",
    "FairGrad",
    "Fixed",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GramianSolution",
    "GramianStep",
    "GramianWeighting",
    "JacobianAggregator",
    "LossWeighting",
    "MoCo",
    "MoDo",
    "NashMTL",
    "PCGrad",
    "SDMGrad",
    "SolverWarning",
    "TorchJDAggregator",
    "TorchJDWeighting",
    "UPGrad",
    "UWRevised",
    "Weighting",
]
