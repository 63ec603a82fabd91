"""What the callbacks of a training were given, and how a change takes effect in a resumed run."""

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint

# No state hides it, and processes may spell it differently until the first one has told the others.
_FOLDER = "dirpath"


class CallbackSettings:
    """The plain attributes of a callback before its state is loaded: its arguments, and where it starts.

    Args:
        callback: The callback.

    Attributes:
        callback: As given.
        plain: Its type and its attributes that are numbers, strings, bools, None, or lists of such.

    Example:
        >>> from pytorch_lightning.callbacks import EarlyStopping
        >>> CallbackSettings(EarlyStopping("val/loss/total/epoch", patience=2)).plain["values"]["patience"]
        2
    """

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        values = {
            name: copy.copy(value)
            for name, value in vars(callback).items()
            if _is_plain(value) and name != _FOLDER
        }
        self.plain: dict[str, Any] = {
            "type": f"{type(callback).__module__}.{type(callback).__qualname__}",
            "values": values,
        }

    def set_changes(self, before: Mapping[str, Any]) -> bool:
        """Give the callback back the values that differ from those before; whether there are any.

        Args:
            before: `plain` of the callback that it continues.
        """
        old, new = before["values"], self.plain["values"]
        changes = {name: new[name] for name in new if name not in old or old[name] != new[name]}
        for name, value in changes.items():
            setattr(self.callback, name, value)
        return bool(changes)


def others(trainer: Trainer, own: Callback) -> list[Callback]:
    """The callbacks of a trainer, without one of them.

    Args:
        trainer: The trainer.
        own: The callback that is left out.
    """
    return [callback for callback in trainer.callbacks if callback is not own]  # type: ignore[attr-defined]


def set_changes(settings: Sequence[CallbackSettings], before: Sequence[Mapping[str, Any]]) -> bool:
    """Set what was changed in each callback, and say whether a decision to stop has to be made again.

    Callbacks of one type continue each other in their order. Those that keep checkpoints stop no training.

    Args:
        settings: What the callbacks are given now.
        before: `CallbackSettings.plain` of those before.
    """
    earlier: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for plain in before:
        earlier[plain["type"]].append(plain)
    anew = False
    for own in settings:
        former = earlier[own.plain["type"]]
        changed = own.set_changes(former.pop(0)) if former else True
        anew |= changed and not isinstance(own.callback, Checkpoint)
    return anew or any(earlier.values())


def _is_plain(value: Any) -> bool:
    entries = value if isinstance(value, list | tuple) else [value]
    return all(entry is None or type(entry) in (bool, int, float, str) for entry in entries)
