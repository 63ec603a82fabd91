import pytest

from polytask.config import Config

DATA = {
    "_target_": "torch.utils.data.DataLoader",
    "dataset": {"_target_": "torch.utils.data.ConcatDataset", "datasets": []},
}


def problems(part, values, **others):
    system = {
        "_target_": "pytorch_lightning.LightningModule",
        "dataloaders": {"train": DATA, "val": "$@system.dataloaders.train"},
        part: values,
    }
    found = Config.from_plain({"system": system, **others}, where="x").problems()
    return [str(problem) for problem in found if "must not refer to data" in str(problem)]


@pytest.mark.parametrize("part", ["model", "criterion", "metrics"])
def test_what_is_built_before_the_data_cannot_refer_to_it(part):
    found = problems(part, {"a": ["$@system.dataloaders.train.dataset"]})

    assert len(found) == 1
    assert f"x system.{part}.a.0: 'system.{part}' must not refer" in found[0]
    assert "'system.dataloaders.train.dataset'" in found[0]


def test_not_by_way_of_others_either():
    values = {"y": {"_target_": "torch.nn.Identity", "_args_": ["$@system.dataloaders.val.dataset"]}}

    assert "x vars.y._args_.0: 'system.model'" in problems("model", "$@vars.y", vars=values)[0]
    assert problems("model", None, vars=values) == []


def test_the_trainer_cannot_refer_to_data():
    assert problems("model", None, trainer={"callbacks": ["$@system.dataloaders.train"]})


def test_data_may_refer_to_data_and_parts_to_each_other():
    shared = {"_target_": "torch.nn.ReLU"}

    assert problems("model", {"a": "$@vars.relu", "b": "$@system.model.a"}, vars={"relu": shared}) == []
