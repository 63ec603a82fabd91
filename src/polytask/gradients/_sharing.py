"""Which tasks ever reached a parameter."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from polytask._distributed import Ranks
from polytask._errors import UserError
from polytask.gradients._graph import Graph


class Sharing:
    """What steps have shown: the tasks that reached each parameter, and which tasks there were.

    A `torch.nn.Parameter` is shared once two tasks have reached it; where there is one task in all, every
    one is. One-task batches show nothing by themselves.

    Args:
        model: Whose parameters come first, in its order; others follow as they are met.

    Example:
        >>> sharing = Sharing(nn.Linear(2, 1))
        >>> sharing.restore({"a": ["weight", "bias"], "b": ["weight"]})
        >>> [tuple(parameter.shape) for parameter in sharing.shared(("a", "b"))]
        [(1, 2)]
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = dict(model.named_parameters())
        self.tasks: dict[Tensor, set[str]] = {parameter: set() for parameter in self.parameters.values()}
        self.seen: set[str] = set()
        self._masks: dict[tuple[str, ...], dict[Tensor, int]] = {}
        self._news = False

    def knows(self, names: tuple[str, ...]) -> bool:
        """Whether a step with these tasks was seen."""
        return names in self._masks

    def learn(self, graph: Graph, names: tuple[str, ...]) -> None:
        """Add what a step's graph shows; its bits are in the order of the names."""
        self._news |= not self.seen.issuperset(names)
        self.seen.update(names)
        known = self._masks.setdefault(names, {})
        for leaf, node in graph.leaves.items():
            mask, before = graph.masks[node], known.get(leaf, 0)
            # An input that wants a gradient is a leaf too, and another one in each batch.
            if mask & ~before and isinstance(leaf, nn.Parameter):
                self._news = True
                known[leaf] = mask | before
                self.tasks.setdefault(leaf, set()).update(
                    name for bit, name in enumerate(names) if mask >> bit & 1
                )

    def agree(self, ranks: Ranks) -> None:
        """Learn what other ranks have seen since the last call.

        Raises:
            UserError: Where tasks share a parameter that is not the model's, which ranks cannot name.
        """
        if not ranks.any(self._news):
            return
        self._news = False
        for saved in ranks.gather(self.saved()):
            self.restore(saved)
        own = set(self.parameters.values())
        if any(len(tasks) > 1 for parameter, tasks in self.tasks.items() if parameter not in own):
            rule = "on several ranks, all parameters that tasks share are the model's"
            raise UserError("model", rule, "another one", "Make it a parameter of the model")

    def shared(self, all_names: Sequence[str]) -> list[Tensor]:
        """The shared parameters, in order.

        Args:
            all_names: All tasks, present or not.

        Raises:
            UserError: Where every task was seen and there is no such parameter, nor a frozen one.
        """
        found = self.found(all_names)
        # What is frozen may be what they share, and nothing is left to balance until it is trained.
        frozen = any(not parameter.requires_grad for parameter in self.parameters.values())
        if not found and not frozen and self.seen.issuperset(all_names):
            raise UserError(
                "model",
                f"a weighting by gradients needs parameters that the tasks {', '.join(all_names)} share",
                "none that two of them reach",
                "Use a weighting by losses, Equal for example",
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
        """How many elements the parameters have that one task alone reached so far, by task.

        Args:
            all_names: All tasks, present or not.
        """
        sizes = dict.fromkeys(all_names, 0)
        for parameter, tasks in self.tasks.items():
            if len(tasks) == 1:
                sizes[next(iter(tasks))] += parameter.numel()
        return sizes

    def saved(self) -> dict[str, list[str]]:
        """The names of the model's parameters that each task reached."""
        return {
            task: [name for name, parameter in self.parameters.items() if task in self.tasks[parameter]]
            for task in sorted(self.seen)
        }

    def restore(self, saved: Mapping[str, Sequence[str]]) -> None:
        """Take up what `saved` gave."""
        self.seen.update(saved)
        for task, names in saved.items():
            for name in names:
                self.tasks[self.parameters[name]].add(task)
