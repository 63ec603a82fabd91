"""Which tasks ever reached a parameter."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from polytask._distributed import Ranks
from polytask._errors import UserError
from polytask.gradients._graph import Graph


class Sharing:
    """What the steps so far have shown: the tasks that reached each parameter, and which tasks there were.

    A `torch.nn.Parameter` is shared once two tasks have reached it; with a single task, every parameter is.
    Batches of one task show nothing by themselves.

    Args:
        model: Its parameters come first, in its order; other parameters follow as steps reach them.

    Example:
        >>> sharing = Sharing(nn.Linear(2, 1))
        >>> sharing.load_state_dict({"a": ["weight", "bias"], "b": ["weight"]})
        >>> [tuple(parameter.shape) for parameter in sharing.shared(("a", "b"))]
        [(1, 2)]
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = dict(model.named_parameters())
        self.tasks: dict[Tensor, set[str]] = {parameter: set() for parameter in self.parameters.values()}
        self.seen: set[str] = set()
        self._masks: dict[tuple[str, ...], dict[Tensor, int]] = {}
        self._trained: tuple[bool, ...] = ()
        self._news = False

    def knows(self, names: tuple[str, ...]) -> bool:
        """Whether a step with these tasks was seen, with the same parameters trained."""
        trained = tuple(parameter.requires_grad for parameter in self.parameters.values())
        if trained != self._trained:
            self._trained = trained
            self._masks.clear()
        return names in self._masks

    def learn(self, graph: Graph, names: tuple[str, ...]) -> None:
        """Add what a step's graph shows.

        Args:
            graph: The graph, whose bits are in the order of the names.
            names: The step's tasks.
        """
        self._news |= not self.seen.issuperset(names)
        self.seen.update(names)
        known = self._masks.setdefault(names, {})
        for leaf, node in graph.leaves.items():
            mask, before = graph.masks[node], known.get(leaf, 0)
            # An input that requires a gradient is a leaf too, and a different one in each batch.
            if mask & ~before and isinstance(leaf, nn.Parameter):
                self._news = True
                known[leaf] = mask | before
                self.tasks.setdefault(leaf, set()).update(
                    name for bit, name in enumerate(names) if mask >> bit & 1
                )

    def agree(self, ranks: Ranks) -> None:
        """Learn what other ranks have seen since the last call.

        Args:
            ranks: The ranks.
        """
        if not ranks.any(self._news):
            return
        self._news = False
        for state in ranks.gather(self.state_dict()):
            self.load_state_dict(state)

    def check_owned(self) -> None:
        """Refuse a model that is a part of what the tasks share.

        Raises:
            UserError: If two tasks have reached a parameter that is not the model's.
        """
        others = list(self.tasks.items())[len(self.parameters) :]
        shapes = [tuple(parameter.shape) for parameter, tasks in others if len(tasks) > 1]
        if shapes:
            raise UserError(
                "model",
                "must have all parameters that two tasks reach",
                f"{len(shapes)} others, such as one of shape {shapes[0]}",
                "Create the engine of the whole model, or detach the inputs of this part",
            )

    def shared(self, all_names: Sequence[str]) -> list[Tensor]:
        """The shared parameters, in order.

        Args:
            all_names: All tasks, present or not.

        Raises:
            UserError: If every task was seen and there is no such parameter, nor a frozen one.
        """
        found = self.found(all_names)
        # Tasks may share frozen parameters: there is nothing to balance until those are trained.
        frozen = any(not parameter.requires_grad for parameter in self.parameters.values())
        if not found and not frozen and self.seen.issuperset(all_names):
            raise UserError(
                "model",
                f"must have parameters that the tasks {', '.join(all_names)} share, "
                "since the weighting is based on gradients",
                "none that two of them reach",
                "Use a weighting based on losses, such as Equal",
            )
        return found

    def found(self, all_names: Sequence[str]) -> list[Tensor]:
        """The parameters that are known to be shared, in order; there may be none.

        Args:
            all_names: All tasks, present or not.
        """
        least = min(2, len(all_names))
        return [parameter for parameter, tasks in self.tasks.items() if len(tasks) >= least]

    def own(self, all_names: Sequence[str]) -> dict[str, int]:
        """Number of elements of the parameters that one task alone reached so far, by task.

        Args:
            all_names: All tasks, present or not.
        """
        sizes = dict.fromkeys(all_names, 0)
        for parameter, tasks in self.tasks.items():
            if len(tasks) == 1:
                sizes[next(iter(tasks))] += parameter.numel()
        return sizes

    def state_dict(self) -> dict[str, list[str]]:
        """The names of the model's parameters that each task reached."""
        return {
            task: [name for name, parameter in self.parameters.items() if task in self.tasks[parameter]]
            for task in sorted(self.seen)
        }

    def load_state_dict(self, state: Mapping[str, Sequence[str]]) -> None:
        """Add what `state_dict` returned."""
        self.seen.update(state)
        for task, names in state.items():
            for name in names:
                self.tasks[self.parameters[name]].add(task)
