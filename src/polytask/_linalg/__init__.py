"""Solvers on Gramians: small matrices, one row and column per task, in float64.

Begin with ``_gramian`` (norms, cosines, eigenvalues); then ``_nnls`` is the quadratic program behind MGDA,
UPGrad and DualProj, ``_ball`` the one of CAGrad, ``_balance`` Newton's method for Nash-MTL and FairGrad, and
``_simplex`` a projection. A solver returns its solution and whether it was found; it does not raise.

This package uses torch only and imports nothing of polytask: it knows neither tasks nor weightings.
"""

from polytask._linalg._balance import balance
from polytask._linalg._ball import steepest_in_ball
from polytask._linalg._gramian import Spectrum, condition, cosines, divide, exact, shrink, spectrum
from polytask._linalg._nnls import SMALL, min_norm, nonnegative
from polytask._linalg._simplex import onto_simplex

__all__ = [
    "SMALL",
    "Spectrum",
    "balance",
    "condition",
    "cosines",
    "divide",
    "exact",
    "min_norm",
    "nonnegative",
    "onto_simplex",
    "shrink",
    "spectrum",
    "steepest_in_ball",
]
