"""The table of all weightings, in a terminal, outside one, and in the documentation."""

import inspect

import pytest

from polytask import cli, weighting
from polytask.weighting._catalogue import header, lines, methods, page, section
from tests.cases import AGGREGATORS, GRAMIAN_WEIGHTINGS, LOSS_WEIGHTINGS, WEIGHTINGS

FOUND = {method.method: method for method in methods()}


def test_every_weighting_is_in_the_table_once_under_what_it_is_given():
    for given, cases in (
        ("losses", LOSS_WEIGHTINGS),
        ("Gramian", GRAMIAN_WEIGHTINGS),
        ("Jacobian", AGGREGATORS),
    ):
        assert {name for name, method in FOUND.items() if method.given == given} == {
            case.method for case in cases
        }
    assert len(methods()) == len(FOUND) == len({case.method for case in WEIGHTINGS})


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.method)
def test_every_entry_says_something(method):
    values = [getattr(method, name) for name in header()]
    assert all(values)
    assert not any("\t" in value or "|" in value or "\n" in value for value in values)
    assert method.when.endswith(".")
    assert method.when in section(getattr(weighting, method.method), "When")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("Equal", "The usual baseline; no paper"),
        ("UW", "Kendall et al., CVPR 2018"),
        ("UWRevised", "Liebel and Körner, arXiv 1805.06334, 2018"),
        ("MGDA", "Désidéri, Comptes Rendus Mathématique, 2012"),
        ("GradDrop", "Chen et al., NeurIPS 2020"),
    ],
)
def test_the_source_is_read_from_the_docstring(name, source):
    assert FOUND[name].source == source


@pytest.mark.parametrize(
    ("name", "needs", "cost"),
    [
        ("DWA", "nothing", "none"),
        ("FAMO", "the batch's losses after the step", "one more forward"),
        ("GradNorm", "gradients of the last shared layer, losses", "one layer's gradients by task"),
        ("PCGrad", "gradients of the parameters", "gradients by task"),
        ("MoDo", "gradients of the parameters, 3 batches a step", "gradients by task, 3 times"),
        ("MoCo", "gradients of the parameters", "gradients by task, all kept"),
    ],
)
def test_needs_and_cost_are_read_from_the_class(name, needs, cost):
    assert (FOUND[name].needs, FOUND[name].cost) == (needs, cost)


def test_outside_a_terminal_there_is_one_line_each(capsys):
    assert cli.main(["methods"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == lines(methods())
    assert {line.count("\t") for line in shown} == {len(header()) - 1}
    assert "`" not in "".join(shown)


def test_in_a_terminal_there_is_a_table(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "\t" not in shown
    assert all(name in shown for name in FOUND)


def test_the_page_links_every_method():
    text = page(methods())
    assert all(f"| [`{name}`](project:#polytask.weighting.{name}) | " in text for name in FOUND)
    assert "As [`UW`](project:#polytask.weighting.UW)" in text
    assert "tuned `loss_weights`" in text


def test_a_section_ends_where_the_next_begins():
    for method in FOUND:
        found = getattr(weighting, method)
        assert "Reference" not in section(found, "When")
        assert "Deviations" not in section(found, "Reference")
    assert section(found, "Missing") == ""
    assert section(inspect.Signature, "When") == ""
