import ast
import pickle
import re
from pathlib import Path

import pytest

import polytask
from polytask._errors import Reason, RunError, UserError, hint, nearest

ROOT = Path(polytask.__file__).parent


@pytest.mark.parametrize("kind", [UserError, RunError])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("a", "must hold"), "a: must hold."),
        (("a", "must hold", 0), "a: must hold, got 0."),
        (("a", "must hold", None, "Do it"), "a: must hold. Do it."),
        (("a", "must hold.", "b.", "Did you mean 'c'?"), "a: must hold, got b. Did you mean 'c'?"),
        (
            ("a", "cannot be read", Reason("no such file"), "Copy it"),
            "a: cannot be read: no such file. Copy it.",
        ),
    ],
)
def test_the_message_is_one_line(kind, arguments, line):
    assert str(kind(*arguments)) == line


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(UserError("a", "must hold", "b", "Do it")))
    assert str(error) == "a: must hold, got b. Do it."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "No such file or directory"),
        (OSError("two\n lines"), "two lines"),
        (ValueError("wrong"), "wrong"),
        (EOFError(), "EOFError"),
    ],
)
def test_what_another_error_says(error, text):
    assert Reason.said(error) == text


def test_a_reason_is_shown_uncut():
    assert str(UserError("a", "failed", Reason("x" * 5000))).count("x") == 5000


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_failed_is_followed_by_a_reason_and_not_by_a_value(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("UserError", "RunError"):
            fields = [ast.unparse(one) for one in node.args[1:3]]
            if len(fields) == 2 and re.search(r"cannot be|could not|not allowed|failed", fields[0]):
                assert fields[1] == "None" or "eason" in fields[1], f"line {node.lineno}"


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
