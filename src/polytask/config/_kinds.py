"""What a ``_target_`` may be, decided by the object that it names and not by how it is written."""

import enum
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType

from polytask._errors import UserError
from polytask.config._project import is_from
from polytask.config._trust import ROOTS, is_installed

CLASSES = (
    "torch.nn.Module",
    "torch.optim.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "torch.utils.data.Dataset",
    "torch.utils.data.Sampler",
    "torch.utils.data.DataLoader",
    "torchmetrics.Metric",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.Callback",
    "pytorch_lightning.loggers.Logger",
    "pytorch_lightning.profilers.Profiler",
    "pytorch_lightning.strategies.Strategy",
    "pytorch_lightning.accelerators.Accelerator",
    "pytorch_lightning.plugins.Precision",
    "pytorch_lightning.plugins.environments.ClusterEnvironment",
    "transformers.PretrainedConfig",
    "transformers.PreTrainedTokenizerBase",
)
# Other parts of these packages have classes of the same kinds that run code, open files or start servers.
CLASS_PACKAGES = {
    "torch": ("torch.nn", "torch.optim", "torch.utils.data"),
    "pytorch_lightning": (
        "pytorch_lightning.accelerators",
        "pytorch_lightning.callbacks",
        "pytorch_lightning.core",
        "pytorch_lightning.loggers",
        "pytorch_lightning.plugins",
        "pytorch_lightning.profilers",
        "pytorch_lightning.strategies",
        "pytorch_lightning.trainer",
    ),
    "lightning_fabric": ("lightning_fabric.plugins.environments",),
}
# Packages whose classes are allowed whatever their kind.
PLAIN_PACKAGES = ("torch.nn", "torch.optim", "torch.utils.data", "torchvision.transforms")
REFUSED = ("torch.utils.data.datapipes",)
# Modules made from code that is data.
REFUSED_KINDS = ("torch.fx.GraphModule", "torch.jit.ScriptModule")
OWN = (
    "polytask.adapters",
    "polytask.callbacks",
    "polytask.data",
    "polytask.diagnostics",
    "polytask.loggers",
    "polytask.losses",
    "polytask.metrics",
    "polytask.models",
    "polytask.optim",
    "polytask.predictions",
    "polytask.system",
    "polytask.weighting",
)
"""Modules of this package whose public names may be configured."""
FUNCTIONS = (
    "torch.utils.data.random_split",
    "torch.utils.data.default_collate",
    "timm.create_model",
)
FUNCTION_PACKAGES = (
    "torch.functional",
    "torch.nn.functional",
    "torchvision.models",
    "torchvision.ops",
    "torchvision.transforms",
    "transformers.optimization",
)
# These two map files into memory, and create them.
_FILE_FUNCTIONS = ("from_file", "frombuffer")


def within(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted name is one of the prefixes or below one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def known(name: str) -> object:
    """The object of a public name if its module is imported, else None."""
    module, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(module), attribute, None)


def full_name(found: object) -> str:
    """The module and the name of an object's definition."""
    if isinstance(found, MethodType):
        found = found.__func__
    owner = found if isinstance(found, type | FunctionType | BuiltinFunctionType) else type(found)
    return f"{owner.__module__}.{owner.__qualname__}"


def is_allowed(found: object, written: str, project: Path | None, allow: Sequence[str]) -> bool:
    """Whether a config may call this object, or use it as a value.

    Args:
        found: The object that the target names.
        written: The target.
        project: The folder of trusted code.
        allow: Dotted names that the user allows.
    """
    name = full_name(found)
    root = name.partition(".")[0]
    if _is_widened(name, written, allow):
        return True
    if _is_projects(found, written, project):
        return True
    if root not in ROOTS:
        return False
    if root == "polytask":
        return _is_own(found)
    if isinstance(found, type):
        return _is_class(found, name)
    if isinstance(found, MethodType):
        return root == "transformers" and found.__name__ in ("from_pretrained", "from_config")
    if isinstance(found, FunctionType):
        return (within(name, FUNCTION_PACKAGES) and _is_at_home(found)) or any(
            found is known(function) for function in FUNCTIONS
        )
    if isinstance(found, BuiltinFunctionType):
        return _is_tensor_function(found)
    return is_value(found)


def check_arguments(found: object, keywords: Mapping[str, object], where: str) -> None:
    """Refuse the arguments that make a model hub run code from a download.

    Raises:
        UserError: If a constructor of timm or transformers gets one.
    """
    if full_name(found).partition(".")[0] not in ("timm", "transformers"):
        return
    for name, value in keywords.items():
        if (name == "trust_remote_code" and value is not False) or (
            name == "weights_only" and value is not True
        ):
            rule = "must not run downloaded code"
            raise UserError(f"{where}.{name}", rule, repr(value), "Remove it")
        if isinstance(value, Mapping):
            check_arguments(found, value, f"{where}.{name}")


def is_value(found: object) -> bool:
    """Whether an object is a value: a member of an enumeration, or a dtype."""
    dtype = known("torch.dtype")
    return isinstance(found, enum.Enum) or (isinstance(dtype, type) and isinstance(found, dtype))


def _is_widened(name: str, written: str, allow: Sequence[str]) -> bool:
    """Whether the user allows it; the written name counts too, since packages re-export their names."""
    if written in allow:
        return True
    same_root = name.partition(".")[0] == written.partition(".")[0]
    return within(name, allow) or (same_root and within(written, allow))


def _is_projects(found: object, written: str, project: Path | None) -> bool:
    """Whether a project defines an object: a class, a function (wrapped or not), or an instance."""
    if isinstance(found, type | FunctionType | MethodType):
        return _is_of_project(full_name(found), project)
    inner = inspect.unwrap(found) if callable(found) and hasattr(found, "__wrapped__") else found
    return _is_of_project(written, project) and _is_of_project(full_name(inner), project)


def _is_of_project(name: str, project: Path | None) -> bool:
    parts = name.split(".")
    if project is None or parts[0] in ROOTS:
        return False
    modules = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    module = next((module for module in modules if module in sys.modules), None)
    if module is None or not is_from(project, module):
        return False
    file = getattr(sys.modules[module], "__file__", None)
    return file is None or not is_installed(Path(file).resolve().parent)


def _is_class(found: type, name: str) -> bool:
    packages = CLASS_PACKAGES.get(name.partition(".")[0])
    if within(name, REFUSED) or any(is_kind(found, kind) for kind in REFUSED_KINDS):
        return False
    if packages is not None and not any(_is_public(found, name, package) for package in packages):
        return found is known("torch.device")
    return within(name, PLAIN_PACKAGES) or any(is_kind(found, kind) for kind in CLASSES)


def _is_public(found: type, name: str, package: str) -> bool:
    """Whether a class is in the package, and not in a private module without being exported."""
    if not within(name, (package,)):
        return False
    return (
        not any(part.startswith("_") for part in name.split("."))
        or known(f"{package}.{found.__name__}") is found
    )


def _is_own(found: object) -> bool:
    """Whether a module of `OWN` exports the object, whatever module defines it."""
    return isinstance(found, type | FunctionType) and any(_exports(room, found) for room in OWN)


def _exports(room: str, found: type | FunctionType) -> bool:
    exported = getattr(sys.modules.get(room), "__all__", None)
    listed = found.__name__ in exported if exported is not None else _is_at_home(found)
    return listed and known(f"{room}.{found.__name__}") is found


def _is_at_home(found: type | FunctionType) -> bool:
    """Whether a public name of its module is this object, which does not hold for a method."""
    return not found.__name__.startswith("_") and known(f"{found.__module__}.{found.__name__}") is found


def _is_tensor_function(found: BuiltinFunctionType) -> bool:
    if found.__module__ == "torch._C._nn":
        return True
    owner, _, name = found.__qualname__.rpartition(".")
    return found.__module__ == "torch" and owner == "_VariableFunctionsClass" and name not in _FILE_FUNCTIONS


def is_kind(found: object, name: str) -> bool:
    """Whether ``found`` is a class of the kind with this public name."""
    kind = known(name)
    return inspect.isclass(found) and isinstance(kind, type) and issubclass(found, kind)
