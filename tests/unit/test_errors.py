import pickle

import pytest

from polytask._errors import RunError, UserError, hint, nearest


@pytest.mark.parametrize("kind", [UserError, RunError])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("a", "must hold"), "a: must hold."),
        (("a", "must hold", 0), "a: must hold, got 0."),
        (("a", "must hold", None, "Do it"), "a: must hold. Do it."),
        (("a", "must hold.", "b.", "Did you mean 'c'?"), "a: must hold, got b. Did you mean 'c'?"),
    ],
)
def test_the_message_is_one_line(kind, arguments, line):
    assert str(kind(*arguments)) == line


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(UserError("a", "must hold", "b", "Do it")))
    assert str(error) == "a: must hold, got b. Do it."


def test_what_the_errors_are():
    assert issubclass(UserError, ValueError)
    assert issubclass(RunError, RuntimeError)


@pytest.mark.parametrize(
    ("name", "found"), [("DIGIT", "digit"), ("digt", "digit"), ("dgiit", "digit"), ("sky", None), ("", None)]
)
def test_the_nearest_name(name, found):
    assert nearest(name, ["digit", "parity"]) == found


def test_a_hint_names_all_where_none_is_close():
    assert hint("sky", ["digit", "parity"], "Tasks") == "Tasks: digit, parity"
    assert hint("sky", []) == "Known: none"
