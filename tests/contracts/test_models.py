"""What every model, and every part that models are made of, must do."""

import copy
import inspect
import io
import pickle
import re

import pytest
import torch
from torch import nn

import polytask.models
from polytask import UserError
from polytask.models import MultiTaskModel
from tests.cases import MODELS, NO_CASE, PARTS, ModelCase

models = pytest.mark.parametrize("case", MODELS, ids=str)
images = pytest.mark.parametrize("case", [case for case in MODELS + PARTS if len(case.sample) == 3], ids=str)
everything = pytest.mark.parametrize("case", MODELS + PARTS, ids=str)


def build(case: ModelCase, seed: int = 0) -> nn.Module:
    """The model, in training where that gives the same for the same rows."""
    torch.manual_seed(seed)
    return case.build().train(not case.varies)


def reaches(case: ModelCase, name: str, task: str) -> bool:
    """Whether what stands under a name is used for the task: shared, the task's own, or exchanged."""
    owners = [part.removeprefix("task_") for part in name.split(".") if part.startswith("task_")]
    return not owners or task in owners or re.match(case.exchanged, name) is not None


def batch(case: ModelCase, rows: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, *case.sample, generator=generator).to(dtype)


def flat(outputs) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return list(outputs.values()) if isinstance(outputs, dict) else list(outputs)


def same(one, other) -> bool:
    one, other = flat(one), flat(other)
    return len(one) == len(other) and all(map(torch.equal, one, other))


def count_heads(model: MultiTaskModel) -> dict[str, int]:
    calls = dict.fromkeys(model.task_names, 0)

    def counter(name):
        def count(module, args):
            calls[name] += 1

        return count

    for name, head in model.heads.items():
        head.register_forward_pre_hook(counter(name))
    return calls


def watch(model: nn.Module) -> list[str]:
    """The names of modules with parameters, as they are called."""
    called: list[str] = []
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda module, args, name=name: called.append(name))
    return called


def test_every_public_name_has_a_case():
    public = {name: getattr(polytask.models, name) for name in polytask.models.__all__}
    concrete = {name for name, value in public.items() if not inspect.isabstract(value)}
    assert {case.method for case in MODELS + PARTS} | NO_CASE == concrete


def test_every_case_stands_in_the_list_of_its_kind():
    kinds = {case.name: isinstance(case.build(), MultiTaskModel) for case in MODELS + PARTS}
    assert kinds == {case.name: case in MODELS for case in MODELS + PARTS}


# Models and parts


@everything
@pytest.mark.parametrize("rows", [5, 1, 0])
def test_shapes_for_any_number_of_rows(case, rows):
    shapes = list(case.outputs.values()) if isinstance(case.outputs, dict) else [case.outputs]
    outputs = flat(build(case)(batch(case, rows)))
    assert [tuple(output.shape) for output in outputs] == [(rows, *shape) for shape in shapes]


@everything
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(case, dtype):
    outputs = flat(build(case).to(dtype)(batch(case, dtype=dtype)))
    assert all(output.dtype is dtype and output.isfinite().all() for output in outputs)


@everything
def test_bf16_autocast_runs(case):
    model = build(case).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = flat(model(batch(case)))
    sum(output.float().sum() for output in outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@everything
def test_a_row_does_not_depend_on_the_others(case):
    model, x = build(case).double(), batch(case, dtype=torch.float64)
    for whole, alone in zip(flat(model(x)), flat(model(x[2:3])), strict=True):
        torch.testing.assert_close(whole[2:3], alone)


@everything
def test_state_dict_round_trip_through_a_safe_load(case):
    source, target, x = build(case), build(case, seed=1), batch(case)
    assert not same(source(x), target(x))
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    assert same(source(x), target(x))


@everything
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_equal_and_independent(case, clone):
    model, x = build(case), batch(case)
    other = clone(model)
    expected = model(x)
    assert same(expected, other(x))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert same(expected, model(x))


@everything
def test_seeded_construction_repeats(case):
    one, other = build(case).state_dict(), build(case).state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@images
def test_channels_last_images_give_the_same(case):
    model, x = build(case).double(), batch(case, dtype=torch.float64)
    expected = flat(model(x))
    model.to(memory_format=torch.channels_last)
    for output, value in zip(flat(model(x.to(memory_format=torch.channels_last))), expected, strict=True):
        torch.testing.assert_close(output, value)


@everything
def test_repr_shows_every_kind_of_layer(case):
    model = build(case)
    lines = {repr(module) for module in model.modules() if isinstance(module, nn.Linear)}
    assert all(line in repr(model) for line in lines)


# Models


@models
def test_names_and_outputs_agree(case):
    model = build(case)
    outputs = model(batch(case))
    assert model.task_names == tuple(case.outputs)
    if model.task_names[0] == "task0":
        assert isinstance(outputs, list)
        assert len(outputs) == len(case.outputs)
    else:
        assert list(outputs) == list(case.outputs)


@models
def test_naming_tasks_runs_their_heads_only(case):
    model = build(case)
    calls = count_heads(model)
    first, _, last = model.task_names
    outputs = model(batch(case), tasks=[last, first])
    assert list(outputs) == [first, last]
    assert calls == {name: int(name in (first, last)) for name in model.task_names}


@models
@pytest.mark.parametrize("kind", [list, tuple, set, lambda names: dict.fromkeys(names).keys()])
def test_a_subset_equals_the_same_entries_of_all(case, kind):
    model, x = build(case), batch(case)
    everyone = dict(zip(model.task_names, flat(model(x)), strict=True))
    chosen = model.task_names[1:]
    subset = model(x, kind(chosen))
    assert list(subset) == list(chosen)
    assert all(torch.equal(subset[name], everyone[name]) for name in chosen)


@models
def test_one_task_by_place_or_name_is_a_tensor_and_runs_one_head(case):
    model, x = build(case), batch(case)
    everyone = flat(model(x))
    calls = count_heads(model)
    for index, name in enumerate(model.task_names):
        assert torch.equal(model(x, index), everyone[index])
        assert torch.equal(model(x, name), everyone[index])
    assert set(calls.values()) == {2}


@models
def test_gradients_of_one_task_reach_what_it_uses_and_only_that(case):
    for task in build(case).task_names:
        model = build(case).train()
        outputs = dict(zip(model.task_names, flat(model(batch(case))), strict=True))
        outputs[task].square().sum().backward()
        for name, parameter in model.named_parameters():
            reached = reaches(case, name, task)
            assert (parameter.grad is not None) == reached, name
            assert not reached or parameter.grad.any() or re.match(case.idle, name), name


@models
@pytest.mark.parametrize("training", [True, False])
def test_a_task_runs_nothing_that_it_does_not_use(case, training):
    for task in build(case).task_names:
        model = build(case).train(training)
        called = watch(model)
        model(batch(case), task)
        assert called
        assert [name for name in called if not reaches(case, name, task)] == []
        # Only what towers exchange is worked out for each of them.
        once = [name for name in called if not name.startswith("units.")]
        assert len(once) == len(set(once))


@models
def test_the_parts_of_the_protocol_make_up_the_forward(case):
    model, x = build(case), batch(case)
    representation = model.represent(x)
    by_hand = [head(model.for_task(representation, name)) for name, head in model.heads.items()]
    assert same(by_hand, model(x))


@pytest.mark.slow
@models
def test_the_export_of_a_chosen_task_equals_eager(case):
    check_export(case, list(case.outputs)[1])


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, ["forward", "type"]], ids=repr)
def test_the_export_of_a_task_by_its_place_and_of_several_equals_eager(tasks):
    check_export(MODELS[0], tasks)


def check_export(case, tasks):
    model = build(case).eval()
    rows = torch.export.Dim("rows")
    tasks_shapes = [None] * len(tasks) if isinstance(tasks, list) else None
    program = torch.export.export(model, (batch(case), tasks), dynamic_shapes=({0: rows}, tasks_shapes))
    x = batch(case, rows=9)
    for output, expected in zip(flat(program.module()(x, tasks)), flat(model(x, tasks)), strict=True):
        torch.testing.assert_close(output, expected)


@models
@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (3, ["0 ", "2 ", "below 3", "got 3"]),
        (-1, ["below 3", "got -1"]),
        (True, ["a bool"]),
        (1.0, ["a float"]),
        (torch.tensor(1), ["a Tensor", "an integer"]),
        ([], ["at least one task"]),
        ("tsk", ["'tsk'"]),
        ([0], ["'0'", "Tasks: "]),
    ],
    ids=repr,
)
def test_an_unusable_choice_of_tasks_is_an_error(case, tasks, words):
    with pytest.raises(UserError) as caught:
        build(case)(batch(case), tasks)
    message = str(caught.value)
    assert message.startswith("tasks: ")
    assert all(word in message for word in words)


@models
def test_a_misspelt_task_is_an_error_with_the_nearest(case):
    model = build(case)
    name = model.task_names[0]
    with pytest.raises(UserError, match=f"Did you mean '{name}'"):
        model(batch(case), [name, name.capitalize()])
