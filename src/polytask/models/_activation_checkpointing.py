"""Activation checkpoints, which run a part of the forward again without the units behind its modules."""

import torch

from polytask._errors import UserError


def check_not_run_again(where: str) -> None:
    """Raise inside an activation checkpoint: its gradients would be those of the plain backbone.

    Args:
        where: The module that has a unit behind it, for the message.

    Raises:
        UserError: If a backward would run the module again.
    """
    if torch.compiler.is_compiling():
        return
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    anew = hooks is not None and "_checkpoint_hook" in getattr(hooks[0], "__qualname__", "")
    # Of all ways to disable gradients, only an autograd function disables those of forward mode too.
    if anew or not torch._C._is_fwd_grad_enabled():
        rule = "must not be inside an activation checkpoint, which would call the plain module again"
        raise UserError(where, rule, "torch.utils.checkpoint", "Turn checkpointing off for this part")
