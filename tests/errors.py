"""The message of an error that a user can correct."""

from collections.abc import Callable
from typing import Any

import pytest

from polytask import UserError


def refusal(call: Callable[[], Any]) -> str:
    """The message of the `UserError` that a call raises."""
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)
