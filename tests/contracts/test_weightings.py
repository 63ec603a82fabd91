"""What every weighting must do, whichever way it balances tasks."""

import inspect

import pytest

import polytask.weighting
from polytask import UserError
from polytask.weighting import GramianWeighting, JacobianAggregator, LossWeighting, Weighting
from tests.cases import AGGREGATORS, GRAMIAN_WEIGHTINGS, LOSS_WEIGHTINGS, TASKS, WEIGHTINGS

everything = pytest.mark.parametrize("case", WEIGHTINGS, ids=str)


@pytest.mark.parametrize(
    ("base", "cases"),
    [
        (LossWeighting, LOSS_WEIGHTINGS),
        (GramianWeighting, GRAMIAN_WEIGHTINGS),
        (JacobianAggregator, AGGREGATORS),
        (Weighting, WEIGHTINGS),
    ],
)
def test_every_public_name_has_a_case(base, cases):
    public = [getattr(polytask.weighting, name) for name in polytask.weighting.__all__]
    bases = (Weighting, LossWeighting, GramianWeighting, JacobianAggregator)
    assert {case.method for case in cases} == {
        value.__name__ for value in public if issubclass(value, base) and value not in bases
    }


@pytest.mark.parametrize("base", [LossWeighting, GramianWeighting, JacobianAggregator])
def test_the_bases_cannot_be_built(base):
    with pytest.raises(TypeError, match="abstract"):
        base()


@everything
def test_names_are_known_after_setup_and_set_once(case):
    weighting = case.build()
    assert weighting.names == ()
    weighting.setup(TASKS)
    assert weighting.names == TASKS
    with pytest.raises(UserError, match="must be used by one criterion only"):
        weighting.setup(TASKS)


@everything
def test_a_needed_gradient_is_one_that_an_engine_knows(case):
    weighting = case.build()
    assert weighting.gradients in (None, "parameters", "representation", "last_shared")
    assert (weighting.gradients is None) == isinstance(weighting, LossWeighting)
    assert weighting.batches_per_step >= 1


@everything
def test_repr_names_the_method(case):
    assert repr(case.build()).startswith(case.method + "(")


@everything
@pytest.mark.parametrize("names", [["loss"], [], ["a", "a"], ["1"]])
def test_names_that_cannot_be(case, names):
    with pytest.raises(UserError):
        case.build().setup(names)


@everything
def test_the_docstring_tells_where_it_is_from_and_where_it_differs(case):
    text = inspect.getdoc(type(case.build()))
    assert all(f"\n{section}:\n" in text for section in ("Shape", "Example", "Reference", "Deviations"))
