import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MultiHead, MultiTaskModel, Separate


class Experts(MultiTaskModel):
    """One expert per task: what a scheme with representations of its own looks like."""

    def __init__(self, tasks):
        super().__init__({task: nn.Linear(3, 1) for task in tasks})
        self.experts = nn.ModuleDict({f"expert_{task}": nn.Linear(2, 3) for task in tasks})

    def represent(self, x, tasks=None):
        return {task: self.experts[f"expert_{task}"](x) for task in tasks or self.task_names}

    def for_task(self, representation, task):
        return representation[task]


def test_a_model_must_say_how_it_represents():
    class Silent(MultiTaskModel):
        pass

    with pytest.raises(TypeError, match="represent"):
        Silent({"a": nn.Linear(1, 1)})


def test_represent_is_told_which_tasks_are_wanted():
    model = Experts(["a", "b", "c"])
    ran = []
    for name, expert in model.experts.items():
        expert.register_forward_pre_hook(lambda module, args, name=name: ran.append(name))
    outputs = model(torch.rand(4, 2), ["c", "b"])
    assert list(outputs) == ["b", "c"]
    assert ran == ["expert_b", "expert_c"]


def test_each_head_gets_its_own_part():
    model, x = Experts(["a", "b"]), torch.rand(4, 2)
    assert torch.equal(model(x)["b"], model.heads["b"](model.experts["expert_b"](x)))


def test_the_representation_is_computed_once():
    backbone = nn.Linear(2, 3)
    calls = []
    backbone.register_forward_pre_hook(lambda module, args: calls.append(module))
    MultiHead(backbone, [nn.Linear(3, 1)] * 4)(torch.rand(4, 2))
    assert len(calls) == 1


def test_a_task_named_twice_runs_once():
    model = MultiHead(nn.Linear(2, 3), {"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
    calls = []
    model.heads["a"].register_forward_pre_hook(lambda module, args: calls.append(module))
    assert list(model(torch.rand(4, 2), ["a", "a"])) == ["a"]
    assert len(calls) == 1


def test_torch_containers_serve_as_dict_and_list():
    heads = [nn.Linear(2, 1), nn.Linear(2, 3)]
    x = torch.rand(4, 2)
    by_name = Separate(nn.ModuleDict({"b": heads[0], "a": heads[1]}))
    assert list(by_name(x)) == ["b", "a"]
    assert [output.shape[1] for output in Separate(nn.ModuleList(heads))(x)] == [1, 3]


def test_a_list_of_heads_answers_names_with_a_dict():
    model, x = Separate([nn.Linear(2, 1), nn.Linear(2, 3)]), torch.rand(4, 2)
    assert isinstance(model(x), list)
    assert list(model(x, ["task0", "task1"])) == ["task0", "task1"]


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({}, "heads: needs at least one task, got none."),
        ([], "heads: needs at least one task, got none."),
        (nn.Linear(1, 1), "heads: must be a dict of modules by task, or a list of modules, got a Linear."),
        ("ab", "heads: must be a dict of modules by task, or a list of modules, got a str."),
        ([nn.Linear], "heads.task0: must be a torch.nn.Module, got type."),
        ({"a": nn.Linear(1, 1), "b": None}, "heads.b: must be a torch.nn.Module, got NoneType."),
        ({"2d": nn.Linear(1, 1)}, "heads: a task name must be a letter followed by"),
        ({"loss": nn.Linear(1, 1)}, "heads: 'loss' is reserved for log keys."),
    ],
    ids=repr,
)
def test_unusable_heads(heads, message):
    with pytest.raises(UserError) as caught:
        MultiHead(nn.Linear(1, 1), heads)
    assert str(caught.value).startswith(message)
