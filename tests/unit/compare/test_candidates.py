"""Names and files become changes of a config."""

import pytest

from polytask import UserError
from polytask.compare._candidates import (
    architecture_changes,
    by_name,
    candidates,
    check_monitors,
    method_changes,
    one_task,
)


def weighting(changes):
    return changes[-1]["system"]["criterion"]["weighting"]


@pytest.mark.parametrize("name", ["NashMTL", "nash_mtl", "nashmtl", "nash-mtl"])
def test_a_method_is_named_in_any_case(name):
    given, changes = method_changes(name)
    assert given == "nashmtl"
    assert weighting(changes) == {"_target_": "polytask.weighting.NashMTL"}


def test_an_unknown_method_has_its_nearest_name():
    with pytest.raises(UserError, match=r"--methods: unknown method 'pcgard'. Did you mean 'pcgrad'\?"):
        method_changes("pcgard")


def test_a_method_that_needs_arguments_is_written_as_a_file():
    with pytest.raises(UserError, match=r"Fixed requires weights, got the name 'fixed' alone. Write a YAML"):
        method_changes("fixed")


def test_a_method_of_three_batches_a_step_gets_them():
    _, changes = method_changes("modo")
    assert {"trainer": {"accumulate_grad_batches": 3}} in changes


def test_a_method_without_gradients_leaves_the_level_out():
    system = {"level": None, "refresh_every": 1, "scale_heads": None}
    assert {"system": system} in method_changes("uw")[1]
    assert {"system": system} not in method_changes("pcgrad")[1]


def test_a_file_replaces_the_configs_weighting_whole(tmp_path):
    (tmp_path / "Mild-CAGrad.yaml").write_text(
        "system: {criterion: {weighting: {_target_: polytask.weighting.CAGrad, c: 0.1}}}"
    )
    name, (cleared, changes) = method_changes(str(tmp_path / "Mild-CAGrad.yaml"))
    assert name == "mild_cagrad"
    assert cleared == {"system": {"criterion": {"weighting": None}}}
    assert weighting([changes])["c"] == 0.1


def test_a_file_of_single_values_is_merged(tmp_path):
    (tmp_path / "wide.yaml").write_text("system: {model: {width: 64}}")
    assert architecture_changes(str(tmp_path / "wide.yaml")) == (
        "wide",
        ({"system": {"model": {"width": 64}}},),
    )


@pytest.mark.parametrize("read", [method_changes, architecture_changes])
def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read(str(tmp_path / "none.yaml"))


def test_a_file_whose_name_cannot_name_a_folder(tmp_path):
    (tmp_path / "a b.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match=r"letters, digits, '-' and '_', got 'a b'"):
        method_changes(str(tmp_path / "a b.yaml"))


def test_an_architecture_is_a_file():
    with pytest.raises(UserError, match=r"must be a YAML file of overrides, or 'base'.*got 'mmoe'"):
        architecture_changes("mmoe")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["uw", "uw"], "'uw' twice"),
        (["plain_sum"], "is reserved for a baseline"),
        (["single_task_digit"], "is reserved for a baseline"),
    ],
)
def test_a_name_is_given_once(names, message):
    with pytest.raises(UserError, match=message):
        by_name([(name, ()) for name in names], "--methods")


def test_a_single_task_model_is_the_same_model_with_the_others_weights_0():
    found = candidates(["a", "b"], {}, {"base": (), "wide": ({"x": 1},)}, single_task=True)
    assert [one.name for one in found] == [
        f"{name}-{model}"
        for model in ("base", "wide")
        for name in ("single_task_a", "single_task_b", "plain_sum")
    ]
    assert weighting(found[1].changes)["weights"] == {"a": 0.0, "b": 1.0}
    assert weighting(found[2].changes)["weights"] == {"a": 1.0, "b": 1.0}
    assert found[3].changes[0] == {"x": 1}
    assert len({hash(one) for one in found}) == len(found)


@pytest.mark.parametrize("read", [method_changes, architecture_changes])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("trainer: {max_epochs: 50}", "trainer.max_epochs"),
        ("trainer: {limit_train_batches: 1.0}", "trainer.limit_train_batches"),
        ("system: {metrics: {digit: {top_k: 3}}}", "system.metrics"),
        ("system: {dataloaders: {test: {dataset: {part: train}}}}", "system.dataloaders"),
        ("seed: 3", "seed"),
    ],
)
def test_a_file_changes_no_data_metrics_or_budget(read, text, key, tmp_path):
    (tmp_path / "better.yaml").write_text(text)
    with pytest.raises(UserError, match=f"{key} must be the same for all rows. Set it in the config"):
        read(str(tmp_path / "better.yaml"))


def test_no_file_is_named_as_the_configs_own_model(tmp_path):
    (tmp_path / "base.yaml").write_text("system: {model: {width: 64}}")
    with pytest.raises(UserError, match=r"'base' is reserved for the config's own model. Rename the file"):
        architecture_changes(str(tmp_path / "base.yaml"))


def test_a_file_says_what_is_tuned_for_it_alone(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "trainer: {precision: 64}\nspace: {system.criterion.weighting.c: [1, 2]}"
    )
    (tmp_path / "wide.yaml").write_text("system: {model: {width: 8}}\nspace: {system.model.width: [8, 16]}")
    name, changes = method_changes(str(tmp_path / "mine.yaml"))
    _, model = architecture_changes(str(tmp_path / "wide.yaml"))
    single, plain, mine = candidates(["a"], {name: changes}, {"wide": model}, single_task=True)
    assert mine.space().given == {"system.model.width": [8, 16], "system.criterion.weighting.c": [1, 2]}
    assert single.space().given == plain.space().given == {"system.model.width": [8, 16]}
    assert [source.values for source in mine.sources()] == [
        {"system": {"model": {"width": 8}}},
        {"trainer": {"precision": 64}},
    ]


def test_without_a_space_there_is_none():
    assert candidates(["a"], {}, {"base": ()}, single_task=False)[0].space() is None


def test_a_space_that_is_none_names_the_row(tmp_path):
    (tmp_path / "mine.yaml").write_text("space: {system.optimizer.lr: 0.1}")
    (mine,) = candidates([], dict([method_changes(str(tmp_path / "mine.yaml"))]), {"base": ()}, False)[1:]
    with pytest.raises(
        UserError, match=r"mine-base space system\.optimizer\.lr: must be a list of plain values"
    ):
        mine.space()


@pytest.mark.parametrize(
    "text", ["trainer: {max_epochs: null}", "system: {dataloaders: null}", "trainer: {overfit_batches: 1}"]
)
def test_a_file_empties_no_budget(text, tmp_path):
    (tmp_path / "better.yaml").write_text(text)
    with pytest.raises(UserError, match="must be the same for all rows"):
        method_changes(str(tmp_path / "better.yaml"))


@pytest.mark.parametrize("key", ["trainer.max_epochs", "seed", "system.metrics.digit.top_k"])
def test_no_trial_draws_its_budget(key, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"space: {{{key}: [1, 2]}}")
    (mine,) = candidates([], dict([method_changes(str(tmp_path / "mine.yaml"))]), {"base": ()}, False)[1:]
    with pytest.raises(UserError, match=f"mine-base space: {key} must be the same for all"):
        mine.space()


@pytest.mark.parametrize(
    ("callbacks", "scheduler"),
    [
        ([{"_target_": "mine.EarlyStopping", "monitor": "val/loss/total/epoch"}], None),
        ({"stop": {"_target_": "mine.EarlyStopping", "monitor": "val/other/Accuracy/epoch"}}, None),
        (None, {"_target_": "mine.Plateau", "monitor": "val/loss/other/epoch"}),
    ],
)
def test_a_task_alone_is_judged_by_itself(callbacks, scheduler):
    config = {"trainer": {"callbacks": callbacks}, "system": {"scheduler": scheduler}}
    with pytest.raises(UserError, match="a model of 'digit' alone must be monitored by that task"):
        check_monitors(config, "digit")


def test_what_a_checkpoint_monitors_changes_no_training():
    kept = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "monitor": "val/loss/total/epoch"}
    check_monitors({"trainer": {"callbacks": [kept]}, "system": {}}, "digit")


@pytest.mark.parametrize("key", ["val/digit/Accuracy/epoch", "val/loss/digit/epoch"])
def test_a_task_alone_may_be_judged_by_its_own_numbers(key):
    own = {"_target_": "mine.EarlyStopping", "monitor": key}
    check_monitors({"trainer": {"callbacks": [own]}, "system": {}}, "digit")


def test_an_architecture_leaves_the_weighting_to_the_rows(tmp_path):
    file = tmp_path / "wide.yaml"
    file.write_text("system: {criterion: {weighting: {_target_: polytask.weighting.UW}}}")
    with pytest.raises(
        UserError, match=r"wide\.yaml: an architecture must not set the weighting, .* --methods"
    ):
        architecture_changes(str(file))
    file.write_text("system: {criterion: {reduction: sum}}")
    assert architecture_changes(str(file))[0] == "wide"


NODE = {"_target_": "polytask.callbacks.OneTask", "task": "a"}
STOP = {"_target_": "mine.Stop"}


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [
        (None, [None, [NODE]]),
        ([STOP], [None, [STOP, NODE]]),
        (STOP, [None, [STOP, NODE]]),
        ({"stop": STOP}, [{"one_task": NODE}]),
    ],
)
def test_it_stands_beside_the_configs_own_callbacks(callbacks, expected):
    assert one_task("a", callbacks) == expected
