"""What counts as a number among arguments: those of numpy as well as python's, truth values never."""

import math
from numbers import Integral, Real
from typing import TypeGuard


def is_integer(value: object, least: int) -> TypeGuard[int]:
    """Whether a value is an integer, numpy's included, that is not too small.

    Args:
        value: The value.
        least: The smallest one.

    Example:
        >>> import numpy as np
        >>> is_integer(np.int64(3), 1), is_integer(True, 0), is_integer(2.0, 1), is_integer(0, 1)
        (True, False, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number, numpy's included.

    Args:
        value: The value.

    Example:
        >>> import numpy as np
        >>> is_finite(np.float32(0.5)), is_finite(True), is_finite(float("nan")), is_finite("1")
        (True, False, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
