import pytest

from polytask import UserError
from polytask.config import Config

TEXT = """
trainer: {max_epochs: 9, callbacks: [{_target_: x.Y, monitor: a}]}
vars: {depth: 1, list: [1, 2], link: $@system.model}
system:
  model: {_target_: torch.nn.Linear, in_features: 2}
  optimizer: {_target_: torch.optim.SGD, groups: {heads.digit: {lr: 1}}}
"""


def read(write, *overrides):
    return Config.read([write(TEXT)], overrides).plain


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("trainer.max_epochs=3", ("trainer", "max_epochs"), 3),
        ("trainer.max_epochs=null", ("trainer", "max_epochs"), None),
        ("trainer.callbacks.0.monitor=b", ("trainer", "callbacks", 0, "monitor"), "b"),
        ("trainer.callbacks=[]", ("trainer", "callbacks"), []),
        ("vars.list.1=[a, {b: 1e-4}]", ("vars", "list", 1), ["a", {"b": 0.0001}]),
        ("vars.depth=$@trainer.max_epochs", ("vars", "depth"), 9),
        ("vars.depth=@trainer.max_epochs", ("vars", "depth"), 9),
        ("vars.depth=a=b", ("vars", "depth"), "a=b"),
        ("vars.depth='1'", ("vars", "depth"), "1"),
        ("seed=4", ("seed",), 4),
        ("optimizer.lr=0.1", ("system", "optimizer", "lr"), 0.1),
        (
            "system.optimizer.groups.heads.digit.lr=2",
            ("system", "optimizer", "groups", "heads.digit", "lr"),
            2,
        ),
        ("system.model.bias=false", ("system", "model", "bias"), False),
        ("system.model={_target_: torch.nn.ReLU}", ("system", "model"), {"_target_": "torch.nn.ReLU"}),
        ("scheduler={_target_: a.B}", ("system", "scheduler"), {"_target_": "a.B"}),
    ],
)
def test_a_value_is_set(write, text, path, value):
    node = read(write, text)
    for key in path:
        node = node[key]

    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("max_epochs", ["key=value"]),
        ("=3", ["key=value"]),
        ("a..b=3", ["key=value"]),
        ("trainr.max_epochs=3", ["no key 'trainr'", "'trainer'"]),
        ("vars.dept=3", ["no key 'vars.dept'", "'vars.depth'"]),
        ("vars.list.5=3", ["no key 'vars.list.5'"]),
        ("vars.list.x=3", ["no key 'vars.list.x'"]),
        ("vars.depth.x=3", ["'vars.depth' is a value", "1"]),
        ("vars.link.in_features=3", ["'vars.link' is a reference", "'system.model.in_features'"]),
        ("trainer.max_epochs=[1", ["trainer.max_epochs=[1", "valid YAML"]),
    ],
)
def test_an_override_that_cannot_be_is_an_error(write, text, parts):
    with pytest.raises(UserError) as caught:
        read(write, text)

    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_new_argument_is_compared_with_the_signature(write):
    config = Config.read([write(TEXT)], ["trainer.max_epoch=3"])

    message = next(str(problem) for problem in config.problems() if "max_epoch'" in str(problem))

    assert message.startswith("override trainer.max_epoch:")
    assert "'max_epochs'" in message


def test_a_project_in_an_override_starts_from_the_working_folder(write, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)

    assert Config.read([write("system: {}")], ["project=other"]).project == tmp_path / "other"


def test_an_unknown_key_is_told_each_known_one_once(write):
    with pytest.raises(UserError) as caught:
        read(write, "nonsense.key=1")

    known = str(caught.value).partition("Known: ")[2].rstrip(".").split(", ")

    assert known.count("trainer") == 1
    assert len(known) == len(set(known))
