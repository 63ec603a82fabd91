"""The benchmarks of sharing schemes: what they build and measure, and tables from a few steps."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
architectures, problems, multimnist, table = (
    importlib.import_module(name)
    for name in ("architectures", "architecture_problems", "multimnist", "_table")
)
ALL = [(kind, name) for kind, (_, schemes) in architectures.CASES.items() for name in schemes]


def built(kind, name, tasks=2):
    torch.manual_seed(0)
    shape, schemes = architectures.CASES[kind]
    targets = {f"t{index}": torch.randn(3, 1) for index in range(tasks)}
    return schemes[name](tasks), torch.randn(3, *shape[1:]), targets


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_scheme_learns_all_that_it_counts(kind, name):
    model, x, targets = built(kind, name)
    architectures.loss_of(model, x, targets).backward()
    idle = {n for n, parameter in model.named_parameters() if parameter.grad is None}
    assert idle == set()


def test_the_penalty_is_part_of_the_loss():
    model, x, targets = built("MLP", "SoftParameterSharing")
    loss, penalty = architectures.loss_of(model, x, targets), model.sharing_penalty()
    assert penalty > 0
    model.sharing_strength = 0.0
    torch.testing.assert_close(loss - penalty, architectures.loss_of(model, x, targets))


@pytest.mark.parametrize(("name", "expected"), [("Sluice", 0.0), ("HardParameterSharing", 0.0)])
def test_a_model_may_have_no_penalty(name, expected):
    assert architectures.penalty(built("MLP", name)[0]).item() == expected


def test_decided_selectors_run_k_experts():
    model, x, _ = built("MLP", "DSelectK, decided")
    ran = []
    for number, expert in enumerate(model.experts):
        expert.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.eval()(x, "t1")
    # Both selectors may have chosen the same one.
    assert 1 <= len(ran) <= 2 < len(model.experts)
    assert len(set(ran)) == len(ran)


def test_memory_counts_parameters_twice_and_what_the_backward_keeps():
    model, x, targets = built("MLP", "Separate")
    own = 2 * sum(parameter.nbytes for parameter in model.parameters())
    kept = architectures.kept_bytes(model, x, targets) - own
    # At least the two hidden layers of each network, behind their activations.
    assert kept >= 2 * 4 * len(x) * (architectures.WIDTH + architectures.FEATURES)


def test_groups_know_what_is_related():
    halves = problems.Groups(problems.GROUPS["half and half"]).double()
    x = torch.randn(5, problems.INPUTS, dtype=torch.float64)
    outputs = halves(x)
    sum(output.sum() for task, output in outputs.items() if int(task[1:]) < problems.TASKS // 2).backward()
    reached = [any(p.grad is not None for p in each.parameters()) for each in halves.backbones]
    assert reached == [True, False]


def test_related_tasks_have_one_teacher():
    x, targets = problems.problem(problems.GROUPS["unrelated"], 2000, seed=0)
    again, _ = problems.problem(problems.GROUPS["related"], 2000, seed=0)
    assert torch.equal(x, again)
    variances = torch.stack([target.var() for target in targets.values()])
    # Of one before the noise.
    torch.testing.assert_close(
        variances, torch.full_like(variances, 1 + problems.NOISE**2), atol=0.06, rtol=0
    )


def test_digits_overlap_as_in_the_paper():
    left, right = torch.zeros(1, 28, 28), torch.zeros(1, 28, 28)
    left[0, 0, 0], right[0, 27, 27], left[0, 14, 14], right[0, 8, 8] = 1.0, 2.0, 3.0, 5.0
    canvas = multimnist.two_digits.overlaid(left, right)[0, 0]
    # Of 36 rows the nearest pixel keeps 0, 14 and 33 as 0, 11 and 26; the brighter one is in front.
    assert {(row, column) for row, column in canvas.nonzero().tolist()} == {(0, 0), (11, 11), (26, 26)}
    assert canvas[[0, 11, 26], [0, 11, 26]].tolist() == [1.0, 5.0, 2.0]


def test_each_digit_is_left_once_and_right_once():
    digits = torch.arange(10)
    _, targets = multimnist.multimnist(torch.zeros(10, 28, 28, dtype=torch.uint8), digits, seed=0)
    assert torch.equal(targets["left"], digits)
    assert torch.equal(targets["right"].sort().values, digits)


def run(module, monkeypatch, folder, *arguments):
    monkeypatch.setattr(table, "RESULTS", folder)
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
    module.main()
    lines = (folder / f"{module.__name__}.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_costs_of_all_schemes_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(architectures, "TASKS", (2,))
    monkeypatch.setattr(architectures, "IN_A_ROW", 1)
    header, *rows = run(architectures, monkeypatch, tmp_path, "--rounds", 1)
    assert header[:3] == ["backbone", "T", "scheme"]
    assert [(row[0], row[2]) for row in rows] == ALL
    assert {len(row) for row in rows} == {len(header)}
    by_name = {(row[0], row[2]): row for row in rows}
    assert by_name["MLP", "HardParameterSharing"][4] == "1.00 (0.50)"
    assert by_name["CNN", "Separate"][4] == "1.99 (1.00)"


def test_problems_keep_a_table(monkeypatch, tmp_path):
    few = {name: problems.SCHEMES[name] for name in ("HardParameterSharing", "Separate")}
    monkeypatch.setattr(problems, "SCHEMES", few)
    header, *rows = run(problems, monkeypatch, tmp_path, "--seeds", 2, "--steps", 10)
    assert header == ["scheme", *problems.GROUPS]
    assert [row[0] for row in rows] == [*few, "the known groups", "least of the schemes"]
    assert set(rows[-1][1:]) <= set(few)


def test_the_problems_loss_is_of_the_labelled_rows_and_has_the_penalty():
    model = problems.SCHEMES["SoftParameterSharing"](problems.INPUTS, 32, 16, problems.TASKS)
    x, targets = problems.problem(problems.GROUPS["related"], 2 * problems.TASKS, seed=0)
    expected = problems.loss(model, x, targets)
    for index, target in enumerate(targets.values()):
        others = torch.arange(len(x)) % problems.TASKS != index
        target[others] = torch.nan
    torch.testing.assert_close(problems.loss(model, x, targets), expected)
    model.sharing_strength *= 2
    torch.testing.assert_close(problems.loss(model, x, targets) - expected, model.sharing_penalty() / 2)


def test_multimnist_keeps_a_table(monkeypatch, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for split, count in (("train", 40), ("t10k", 20)):
        for kind, array in {
            "images-idx3": draw.integers(0, 256, (count, 28, 28), np.uint8),
            "labels-idx1": draw.integers(0, 10, count, np.uint8),
        }.items():
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + array.tobytes())
    options = ("--seeds", 2, "--epochs", 1, "--limit", 30, "--device", "cpu")
    header, *rows = run(multimnist, monkeypatch, tmp_path, tmp_path, *options)
    assert header == ["scheme", "parameters", *multimnist.TASKS, "training, all seeds"]
    assert [row[0] for row in rows] == list(multimnist.SCHEMES)
    assert "of 30 examples" in (tmp_path / "multimnist.md").read_text()
