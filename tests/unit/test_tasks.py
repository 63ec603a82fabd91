import pytest
from torch import nn

from polytask import UserError
from polytask._tasks import RESERVED, TaskModules, check_known, check_task_names


@pytest.mark.parametrize("names", [["a"], ["type", "keys", "forward"], ["A_1", "a1"], dict.fromkeys("ab")])
def test_good_names_come_back_in_order(names):
    assert check_task_names(names) == tuple(names)


@pytest.mark.parametrize("name", [*RESERVED, "1a", "a-b", "a b", "a.b", "_a", "", "ä", "a\n", 3, None])
def test_a_name_that_cannot_be_one_is_an_error(name):
    with pytest.raises(UserError, match=r"^heads: "):
        check_task_names(["a", name], "heads")


def test_no_name_and_a_name_twice_are_errors():
    with pytest.raises(UserError, match="at least one task"):
        check_task_names([])
    with pytest.raises(UserError, match="'b' twice"):
        check_task_names(["a", "b", "b"])


def test_an_unknown_name_comes_with_the_nearest():
    check_known(["a"], ["a", "b"], "metrics")
    with pytest.raises(UserError, match=r"^metrics: no task is called 'digt'\. Did you mean 'digit'\?$"):
        check_known(["digt"], ["digit", "b"], "metrics")


def test_modules_keep_their_order_under_any_name():
    names = ["values", "keys", "items", "training", "forward", "a"]
    modules = TaskModules({name: nn.Linear(1, i + 1) for i, name in enumerate(names)})
    assert list(modules) == names
    assert len(modules) == len(names)
    assert [module.out_features for _, module in modules.items()] == [1, 2, 3, 4, 5, 6]
    assert "keys" in modules
    assert "task_keys" not in modules
    assert 3 not in modules


def test_what_is_no_module_is_an_error():
    with pytest.raises(UserError, match=r"^heads\.a: must be a torch\.nn\.Module, got type"):
        TaskModules({"a": nn.Linear}, "heads")
