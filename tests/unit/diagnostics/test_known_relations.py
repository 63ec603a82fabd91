"""The benchmark's tasks with known relations: groups are found from a short training."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
grouping = importlib.import_module("grouping")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*smaller than the logging interval.*"
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_found_and_the_adversary_is_alone(tmp_path, seed):
    problem, tasks = grouping.Problem(seed, 40), list(grouping.READS)
    joint = grouping.train(problem, tasks, seed, tmp_path)
    assert {form: grouping.right(found) for form, found in grouping.proposals(tmp_path).items()} == {
        "lookahead": True,
        "first_order": True,
    }
    alone = grouping.train(problem, ["adversary"], seed, tmp_path / "alone")
    assert joint["adversary"] > alone["adversary"]
