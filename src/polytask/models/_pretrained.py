"""Backbones of timm, torchvision and transformers, without their classifiers."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal

from torch import Tensor, nn

from polytask._errors import UserError, hint, nearest
from polytask.models._argument_checks import check_size

Pooling = Literal["cls", "mean", "tokens"]
_POOLINGS = ("cls", "mean", "tokens")


class TimmBackbone(nn.Module):
    """A model of timm that returns pooled features.

    Args:
        name: A name that ``timm.list_models()`` knows, such as ``resnet18``; the part after a dot names the
            weights.
        pretrained: Whether timm loads the weights, and downloads them if necessary.
        in_channels: Channels of an image.

    Shape:
        - Input: (N, in_channels, height, width).
        - Output: (N, output_dim).

    Raises:
        UserError: If timm is not installed, or does not know the model, with the nearest name.

    Example:
        >>> from polytask.models import TimmBackbone
        >>> TimmBackbone("resnet18").output_dim  # doctest: +SKIP
        512
    """

    def __init__(self, name: str, pretrained: bool = False, in_channels: int = 3) -> None:
        super().__init__()
        timm = extra("timm", "timm")
        _check_name(name.partition(".")[0], timm.list_models(), "timm")
        self.encoder: nn.Module = timm.create_model(
            name, pretrained=pretrained, in_chans=in_channels, num_classes=0
        )
        self.output_dim: int = getattr(self.encoder, "head_hidden_size", None) or self.encoder.num_features

    def forward(self, x: Tensor) -> Tensor:
        """The features of a batch; see Shape.

        Args:
            x: The images.
        """
        features: Tensor = self.encoder(x)
        return features


class TorchvisionBackbone(nn.Module):
    """A classification model of torchvision without its last linear layer.

    Args:
        name: A name that ``torchvision.models.list_models()`` knows, such as ``resnet18``.
        weights: A name of weights of that model, such as ``DEFAULT`` or ``IMAGENET1K_V1``, which torchvision
            loads, and downloads if necessary; None means random weights.

    Shape:
        - Input: (N, 3, height, width).
        - Output: (N, output_dim).

    Raises:
        UserError: If torchvision is not installed or does not know the model or the weights, or the model
            does not end in a linear layer.

    Example:
        >>> from polytask.models import TorchvisionBackbone
        >>> TorchvisionBackbone("resnet18").output_dim  # doctest: +SKIP
        512
    """

    def __init__(self, name: str, weights: str | None = None) -> None:
        super().__init__()
        models = extra("torchvision.models", "vision")
        _check_name(name, models.list_models(module=models), "torchvision")
        known = list(models.get_model_weights(name).__members__)
        if weights is not None and weights not in (*known, "DEFAULT"):
            rule = f"must be weights that torchvision has for '{name}'"
            raise UserError("weights", rule, repr(weights), hint(weights, known))
        self.encoder: nn.Module = models.get_model(name, weights=weights)
        self.output_dim = _behead(self.encoder, name)

    def forward(self, x: Tensor) -> Tensor:
        """The features of a batch; see Shape.

        Args:
            x: The images.
        """
        features: Tensor = self.encoder(x)
        return features


class HuggingFaceEncoder(nn.Module):
    """An encoder of transformers, for text or images.

    Args:
        name: A name on the hub, or a folder that ``save_pretrained`` wrote.
        pooling: What is returned from the last layer: ``cls``, its first token; ``mean``, the mean of its
            tokens, without those that ``attention_mask`` excludes; or ``tokens``, all of them.
        pretrained: Whether the weights are loaded; otherwise only the configuration is.
        output_dim: Features of a token; None means ``hidden_size`` of the encoder's configuration.

    Shape:
        - Input: a dict of the encoder's keyword arguments, for example ``input_ids`` and ``attention_mask``;
          or one tensor, its first argument.
        - Output: (N, output_dim), or (N, tokens, output_dim) with ``tokens``.

    Raises:
        UserError: If transformers is not installed or cannot load the name, the pooling is unknown, the
            configuration has no ``hidden_size`` and no ``output_dim`` is given, or the encoder does not
            return tokens of that size.

    Example:
        >>> from polytask.models import HuggingFaceEncoder
        >>> HuggingFaceEncoder("bert-base-uncased", pretrained=False).output_dim  # doctest: +SKIP
        768
    """

    def __init__(
        self, name: str, pooling: Pooling = "cls", pretrained: bool = True, *, output_dim: int | None = None
    ) -> None:
        super().__init__()
        if pooling not in _POOLINGS:
            raise UserError(
                "pooling",
                f"must be one of {', '.join(_POOLINGS)}",
                repr(pooling),
                hint(str(pooling), _POOLINGS),
            )
        transformers = extra("transformers", "transformers")
        self.pooling = pooling
        try:
            self.encoder: nn.Module = _encoder(transformers, name, pretrained)
        except (OSError, ValueError) as error:
            found = " ".join(str(error).split())
            raise UserError(
                "name", f"must be loadable by transformers, but '{name}' is not", found
            ) from error
        size = getattr(self.encoder.config, "hidden_size", None) if output_dim is None else output_dim
        if size is None:
            found = f"a {type(self.encoder.config).__name__} without hidden_size"
            fix = "Pass the number of features of a token"
            raise UserError("output_dim", "is required for this encoder", found, fix)
        self.output_dim = check_size(size, "output_dim")

    def forward(self, x: Mapping[str, Tensor] | Tensor) -> Tensor:
        """The features of a batch; see Shape.

        Args:
            x: The encoder's input.
        """
        returned = self.encoder(**x) if isinstance(x, Mapping) else self.encoder(x)
        tokens = _tokens(returned, self.output_dim)
        if self.pooling == "tokens":
            return tokens
        if self.pooling == "cls":
            return tokens[:, 0]
        mask = x.get("attention_mask") if isinstance(x, Mapping) else None
        if mask is None:
            return tokens.mean(dim=1)
        present = mask.to(tokens.dtype).unsqueeze(-1)
        return (tokens * present).sum(dim=1) / present.sum(dim=1).clamp_min(1)


def extra(module: str, option: str) -> Any:
    """An optional package, imported when it is used.

    Args:
        module: The module to import.
        option: The extra of this package that installs it.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        fix = f"Install polytask[{option}]"
        rule = "must be installed for this backbone"
        raise UserError(package, rule, f"no module '{error.name}'", fix) from error


def _tokens(returned: Any, features: int) -> Tensor:
    tokens = getattr(returned, "last_hidden_state", None)
    if not isinstance(tokens, Tensor):
        found = f"a {type(returned).__name__}"
    elif tokens.dim() != 3 or tokens.shape[-1] != features:
        found = f"shape {tuple(tokens.shape)}"
    else:
        return tokens
    rule = f"last_hidden_state of the encoder must have the shape (N, tokens, {features})"
    raise UserError("HuggingFaceEncoder", rule, found)


def _encoder(transformers: Any, name: str, pretrained: bool) -> nn.Module:
    if pretrained:
        loaded: nn.Module = transformers.AutoModel.from_pretrained(name)
        return loaded
    made: nn.Module = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(name))
    return made


def _check_name(name: str, known: list[str], package: str) -> None:
    if name not in known:
        close = nearest(str(name), known)
        fix = f"Did you mean '{close}'?" if close else f"See {package}'s list_models()"
        raise UserError("name", f"must be a model of {package}", repr(name), fix)


def _behead(encoder: nn.Module, name: str) -> int:
    """Replace the last linear layer with the identity, and return its number of input features."""
    path, last = [pair for pair in encoder.named_modules() if not list(pair[1].children())][-1]
    if not isinstance(last, nn.Linear):
        rule = "must be a model that ends in a linear layer"
        raise UserError("name", rule, f"a {type(last).__name__} at the end of {name}")
    parent, _, attribute = path.rpartition(".")
    setattr(encoder.get_submodule(parent), attribute, nn.Identity())
    return last.in_features
