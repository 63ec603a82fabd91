import functools
import sys
import types

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor

from polytask import RunError, UserError
from polytask.config import Config
from polytask.optim import OptimizerFactory, SchedulerFactory

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}


def config(values, **top):
    return Config.from_plain({"vars": values, **top}, where="x")


def test_values_and_nested_targets_are_built():
    values = {"net": {"_target_": "torch.nn.Sequential", "_args_": [LINEAR, {"_target_": "torch.nn.ReLU"}]}}

    net = config(values).build("vars.net")

    assert [type(layer).__name__ for layer in net] == ["Linear", "ReLU"]
    assert net[0].out_features == 3


def test_targets_are_given_plain_mappings_and_lists(project):
    values = {"_target_": "nets.own.Net", "activation": {"a": [1, {"b": None}]}}

    net = Config.from_plain({"vars": {"n": values}}, where="x", project=project).build("vars.n")

    assert net.activation == {"a": [1, {"b": None}]}
    assert type(net.activation) is dict
    assert type(net.activation["a"]) is list


def test_a_reference_gives_the_one_object(project):
    values = {
        "system": {"_target_": "nets.own.System", "model": LINEAR, "extra": ["$@system.model", "@vars.l"]}
    }
    built = Config.from_plain({**values, "vars": {"l": {"a": "@system.model"}}}, where="x", project=project)

    system = built.build("system")

    assert system.parts["extra"][0] is system.model
    assert system.parts["extra"][1]["a"] is system.model
    assert built.build("system.model") is system.model
    assert built.build("vars.l.a") is system.model


def test_two_nodes_that_read_the_same_are_two_objects():
    built = config({"a": LINEAR, "b": LINEAR}).build("vars")

    assert built["a"] is not built["b"]


def test_a_copied_value_is_not_shared():
    built = config({"a": [1], "b": "$@vars.a"})

    built.build("vars")["a"].append(2)

    assert built.build("vars") == {"a": [1], "b": [1]}


def test_partial():
    built = config({"x": {"_target_": "torch.argmax", "_partial_": True, "dim": 1}}).build("vars.x")

    assert isinstance(built, functools.partial)
    assert built(torch.tensor([[1, 2]])).tolist() == [1]


def test_a_dtype_is_a_value():
    assert config({"x": {"_target_": "torch.float32"}}).build("vars.x") is torch.float32


def test_an_optimizer_without_parameters_becomes_a_factory():
    node = {"_target_": "torch.optim.SGD", "lr": 0.5, "groups": {"bias": {"lr": 0.1}}}

    factory = config({"o": node}).build("vars.o")
    optimizer = factory.optimizer(torch.nn.Linear(2, 1))

    assert isinstance(factory, OptimizerFactory)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"rest": 0.5, "bias": 0.1}


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 2},
        {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 2},
    ],
)
def test_a_scheduler_without_optimizer_becomes_a_factory(node):
    factory = config({"s": {**node, "interval": "step", "monitor": "val/loss"}}).build("vars.s")

    assert isinstance(factory, SchedulerFactory)
    assert (factory.interval, factory.monitor) == ("step", "val/loss")
    scheduler = factory.build(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
    assert type(scheduler).__name__ == node["_target_"].rpartition(".")[2]


def test_callbacks_may_be_named_and_left_out():
    callbacks = {
        "stop": {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "a"},
        "none": None,
        "rate": {"_target_": "pytorch_lightning.callbacks.LearningRateMonitor"},
    }

    built = config({}, trainer={"callbacks": callbacks}).build("trainer.callbacks")

    assert [type(callback) for callback in built] == [EarlyStopping, LearningRateMonitor]


def test_given_arguments_take_the_place_of_the_nodes_own():
    built = config({"x": {**LINEAR, "out_features": {"_target_": "os.system"}}}).build(
        "vars.x", {"out_features": 5}
    )

    assert built.out_features == 5


def test_an_error_of_a_constructor_names_the_key_and_keeps_its_cause():
    node = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 1, "groups": 2}

    with pytest.raises(
        UserError, match=r"x vars\.x: 'torch.nn.Conv2d' could not be built.*divisible"
    ) as caught:
        config({"x": node}).build("vars.x")

    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_of_our_own_keeps_its_rule_and_fix():
    node = {
        "_target_": "polytask.optim.SchedulerFactory",
        "build": {"_target_": "torch.relu", "_partial_": True},
    }

    with pytest.raises(UserError, match=r"x vars\.x: scheduler\.interval: must be 'epoch' or 'step'.*'day'"):
        config({"x": {**node, "interval": "day"}}).build("vars.x")


def test_a_run_error_passes(project):
    (project / "fails.py").write_text(
        "from polytask import RunError\ndef run():\n    raise RunError('here', 'rule')\n"
    )

    with pytest.raises(RunError, match=r"^here: rule"):
        Config.from_plain({"vars": {"x": {"_target_": "fails.run"}}}, where="x", project=project).build(
            "vars.x"
        )


def test_a_key_that_is_not_there():
    with pytest.raises(UserError, match=r"no key 'vars.lin'.*'vars.line'"):
        config({"line": LINEAR}).build("vars.lin")


def test_what_needs_itself_cannot_be_built(project):
    net = {"_target_": "nets.own.Net"}
    values = {"a": {**net, "activation": "@vars.b"}, "b": {**net, "activation": "@vars.a"}}
    circle = Config.from_plain({"system": net, "vars": values}, where="x", project=project)

    with pytest.raises(UserError, match="must not need itself"):
        circle.build("vars.a")
    assert sum("must not need itself" in str(problem) for problem in circle.problems()) == 1


def test_an_own_part_needs_its_whole(project):
    values = {"_target_": "nets.own.System", "model": {"_target_": "nets.own.Net", "activation": "@system"}}
    circle = Config.from_plain({"system": values}, where="x", project=project)

    assert ["must not need itself" in str(problem) for problem in circle.problems()] == [True]
    with pytest.raises(UserError, match="must not need itself"):
        circle.build("system")


def test_parts_may_refer_to_parts(project):
    values = {
        "_target_": "nets.own.System",
        "model": LINEAR,
        "criterion": ["@system.model"],
        "extra": "@vars.e",
    }
    good = Config.from_plain(
        {"system": values, "vars": {"e": "$@system.criterion"}}, where="x", project=project
    )

    assert good.problems() == []
    assert good.build("system").parts["extra"][0] is good.build("system.model")


FUNCTIONS = """
import torch


def warm(optimizer, steps, end=1.0):
    return torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, end, steps)


def own(opt, gamma):
    return torch.optim.lr_scheduler.ExponentialLR(opt, gamma)


def rule(step):
    return 0.5**step


def decoupled(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr)
"""


@pytest.fixture
def functions(tmp_path):
    (tmp_path / "schedules.py").write_text(FUNCTIONS)
    return lambda system, **top: Config.from_plain({"system": system, **top}, where="x", project=tmp_path)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"_target_": "schedules.warm", "steps": 5}, "LinearLR"),
        ({"_target_": "schedules.own", "gamma": 0.5}, "ExponentialLR"),
        ({"_target_": "schedules.own", "_partial_": True, "gamma": 0.5}, "ExponentialLR"),
        (
            {
                "_target_": "torch.optim.lr_scheduler.ChainedScheduler",
                "schedulers": [{"_target_": "schedules.warm", "steps": 5}],
            },
            "ChainedScheduler",
        ),
        (
            {
                "_target_": "torch.optim.lr_scheduler.LambdaLR",
                "lr_lambda": {"_target_": "schedules.rule", "_partial_": True},
            },
            "LambdaLR",
        ),
    ],
)
def test_a_scheduler_may_be_what_a_function_returns(functions, node, expected):
    built = functions({"model": LINEAR, "criterion": LINEAR, "scheduler": {**node, "interval": "step"}})
    assert not built.problems()
    factory = built.build("system.scheduler")
    assert (type(factory), factory.interval) == (SchedulerFactory, "step")
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    assert type(factory.scheduler(optimizer)).__name__ == expected


def test_a_scheduler_of_a_function_may_stand_in_vars(functions):
    values = {"s": {"_target_": "schedules.warm", "steps": 5, "interval": "step"}}
    factory = functions({"scheduler": "$@vars.s"}, vars=values).build("system.scheduler")
    assert factory.interval == "step"


def test_an_optimizer_may_be_what_a_function_returns(functions):
    node = {"_target_": "schedules.decoupled", "lr": 0.5, "groups": {"bias": {"lr": 0.1}}}
    factory = functions({"optimizer": node}).build("system.optimizer")
    rates = [group["lr"] for group in factory.optimizer(torch.nn.Linear(2, 1)).param_groups]
    assert rates == [0.5, 0.1]


def test_the_arguments_of_a_function_that_returns_a_scheduler_are_checked(functions):
    node = {"_target_": "schedules.warm", "step": 5, "intervall": "step"}
    found = [str(problem) for problem in functions({"scheduler": node}).problems()]
    assert any("Did you mean 'steps'?" in line for line in found)
    assert any("Did you mean 'interval'?" in line for line in found)


def test_the_schedules_of_transformers_are_allowed(monkeypatch):
    def get_constant_schedule_with_warmup(optimizer, num_warmup_steps, last_epoch=-1):
        return torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=num_warmup_steps)

    get_constant_schedule_with_warmup.__module__ = "transformers.optimization"
    for name in ("transformers", "transformers.optimization"):
        module = types.ModuleType(name)
        module.get_constant_schedule_with_warmup = get_constant_schedule_with_warmup
        monkeypatch.setitem(sys.modules, name, module)
    node = {
        "_target_": "transformers.get_constant_schedule_with_warmup",
        "num_warmup_steps": 3,
        "interval": "step",
    }
    factory = Config.from_plain({"system": {"scheduler": node}}, where="x").build("system.scheduler")
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    assert (factory.interval, factory.scheduler(optimizer).total_iters) == ("step", 3)
