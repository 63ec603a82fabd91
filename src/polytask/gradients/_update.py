"""Which of its ways to fill ``.grad`` an engine takes in one call of `Engine.backward`."""

from dataclasses import dataclass
from enum import Enum, auto


class Update(Enum):
    """A way to fill ``.grad``."""

    SUM_OF_LOSSES = auto()
    """One backward of the sum of the losses."""
    KEPT_WEIGHTS = auto()
    """One backward of the losses, weighted by the weights of an earlier step."""
    SINGLE_BATCH = auto()
    """Gradients by task at the engine's level, and the update that the weighting makes of them."""
    ADD_TO_WINDOW = auto()
    """Gradients by task are added to those of the step's other calls; ``.grad`` stays as it is."""
    CLOSE_WINDOW = auto()
    """The same; then the update that the weighting makes of the sum."""


@dataclass(frozen=True)
class Situation:
    """What decides on the update of one call, for a weighting that needs gradients.

    Attributes:
        shared: Whether a parameter is known to be shared by two tasks.
        kept: Whether weights of an earlier step hold for this one (``refresh_every``).
        first: Whether no earlier call of this step has added gradients to the window.
        last: Whether the optimizer steps next.
    """

    shared: bool
    kept: bool
    first: bool
    last: bool


def choose(situation: Situation) -> Update:
    """The update for a situation.

    ====== ==== ===== ==== ============= ================== ========= ===============
    shared kept first last update        gradients by task  weighting ``.grad``
    ====== ==== ===== ==== ============= ================== ========= ===============
    no     any  yes   yes  SUM_OF_LOSSES not computed       not used  filled
    yes    yes  yes   yes  KEPT_WEIGHTS  not computed       not used  filled
    any    yes  other      KEPT_WEIGHTS  not computed       not used  filled
    yes    no   yes   yes  SINGLE_BATCH  at the level       used      filled
    any    no   any   no   ADD_TO_WINDOW explicit rows      not used  left as it is
    any    no   no    yes  CLOSE_WINDOW  explicit rows      used      filled
    ====== ==== ===== ==== ============= ================== ========= ===============

    A call is the step's only one if it is the first and the last. A `LossWeighting` has no choice: the
    scalar that it returns is differentiated. Observers that the update does not serve have their Gramian
    measured before it (see `Observers.measure`).

    Args:
        situation: The situation.

    Example:
        >>> choose(Situation(shared=True, kept=False, first=True, last=True)).name
        'SINGLE_BATCH'
    """
    match situation:
        case Situation(shared=False, first=True, last=True):
            return Update.SUM_OF_LOSSES
        case Situation(kept=True):
            return Update.KEPT_WEIGHTS
        case Situation(first=True, last=True):
            return Update.SINGLE_BATCH
        case Situation(last=False):
            return Update.ADD_TO_WINDOW
        case _:
            return Update.CLOSE_WINDOW
