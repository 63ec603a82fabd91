import pytest

from polytask import UserError
from polytask.config import Config

SYSTEM = {"_target_": "pytorch_lightning.LightningModule"}


def chain(written):
    return {**{f"a{i}": written(f"vars.a{i + 1}") for i in range(1200)}, "a1200": 1}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("vars: {x: " + "[" * 1500 + "]" * 1500 + "}", "must be nested at most 100 deep"),
        ("vars: {x: " + "[" * 150 + "]" * 150 + "}", "must be nested at most 100 deep"),
        ("seed: " + "9" * 5000, "cannot be read"),
        ("seed: 0x" + "f" * 5000, "seed: an integer must have at most 1024 bits"),
    ],
)
def test_what_is_too_deep_or_too_long_is_one_line(write, text, part):
    with pytest.raises(UserError, match=part):
        Config.read([write(text)])


@pytest.mark.parametrize(
    "written",
    [
        lambda key: f"$@{key}",
        lambda key: f"x ${{{key}}}",
        lambda key: {"_target_": "torch.nn.Sequential", "_args_": [f"$@{key}"]},
    ],
)
def test_a_long_chain_of_references_is_one_line(written):
    with pytest.raises(UserError, match="too many references refer to each other in a row"):
        Config.from_plain({"system": SYSTEM, "vars": chain(written)}, where="x").problems()


@pytest.mark.parametrize("groups", [[1], {"backbone": 1}, {"backbone": [1]}, "backbone"])
def test_groups_are_a_mapping_of_mappings(groups):
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1, "groups": groups}

    found = Config.from_plain({"vars": {"x": optimizer}, "system": SYSTEM}, where="x").problems()

    assert [str(problem).partition(":")[0] for problem in found] == ["x vars.x.groups"]
    assert "a mapping" in str(found[0])


def test_groups_of_options_are_no_problem():
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1, "groups": {"heads.digit": {"lr": 1}}}

    assert Config.from_plain({"vars": {"x": optimizer}, "system": SYSTEM}, where="x").problems() == []


def test_vars_can_be_added_as_a_whole(write):
    file = write("system: {}")

    assert Config.read([file], ["vars={x: 3}", "vars.x=4"]).plain["vars"] == {"x": 4}
    with pytest.raises(UserError, match=r"no 'vars'. Set all of it: vars=\{x: ...\}"):
        Config.read([file], ["vars.x=3"])


@pytest.mark.parametrize(("name", "value"), [("batch_size", "64"), ("num_workers", "two"), ("pin_memory", 1)])
def test_types_are_compared_where_only_some_annotations_can_be_read(name, value):
    loader = {
        "_target_": "torch.utils.data.DataLoader",
        "dataset": {"_target_": "torch.nn.ReLU"},
        name: value,
    }

    found = Config.from_plain({"vars": {"x": loader}, "system": SYSTEM}, where="x").problems()

    assert any(f"x vars.x.{name}: must be" in str(problem) for problem in found)
