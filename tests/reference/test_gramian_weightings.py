"""Gramian weightings against TorchJD, where the definitions agree, and against closed forms."""

import math

import numpy as np
import pytest
import torch
import torchjd.aggregation
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.linalg import QuadprogProjector

from polytask.weighting import (
    CRMOGM,
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradVac,
    MoDo,
    NashMTL,
    PCGrad,
    SDMGrad,
    SolverWarning,
    UPGrad,
)
from tests.gramians import KINDS, gramian, jacobian

SIZES = (1, 2, 3, 8, 40)
# Its own regularisation is 1e-4 of the trace; a matrix that is singular needs some.
EXACT = QuadprogProjector(norm_eps=0.0, reg_eps=1e-12)
kinds = pytest.mark.parametrize("kind", KINDS)
sizes = pytest.mark.parametrize("tasks", SIZES)


def close(ours, theirs, rows, tolerance=1e-4):
    """Whether two updates are the same up to a share of the longer, or of what rounding leaves of 0."""
    floor = 1e-9 * rows.norm()
    return (ours - theirs).norm() <= tolerance * max(ours.norm(), theirs.norm()) + floor


def both_are_0(ours, theirs, rows, kind, tasks):
    """Two opposed gradients: TorchJD's update is what rounding leaves of 0."""
    return (kind, tasks) == ("dependent", 2) and (ours - theirs).norm() <= 1e-8 * rows.norm()


def agree(ours, theirs, rows):
    given = rows @ rows.mT
    return close(rows.mT @ ours(given), rows.mT @ theirs(given), rows)


@sizes
@kinds
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (IMTLG, torchjd.aggregation.IMTLGWeighting),
        (AlignedMTL, torchjd.aggregation.AlignedMTLWeighting),
        (
            lambda: AlignedMTL("median"),
            lambda: torchjd.aggregation.AlignedMTLWeighting(scale_mode="median"),
        ),
        (lambda: AlignedMTL("mean"), lambda: torchjd.aggregation.AlignedMTLWeighting(scale_mode="rmse")),
    ],
    ids=["IMTLG", "AlignedMTL", "AlignedMTL-median", "AlignedMTL-mean"],
)
def test_closed_forms_agree(ours, theirs, kind, tasks):
    assert agree(ours(), theirs(), jacobian(kind, tasks))


@sizes
@kinds
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (UPGrad, torchjd.aggregation.UPGradWeighting),
        (DualProj, torchjd.aggregation.DualProjWeighting),
    ],
    ids=["UPGrad", "DualProj"],
)
def test_projections_agree_where_the_peers_regularisation_is_small(ours, theirs, kind, tasks):
    rows = jacobian(kind, tasks)
    if kind == "scales":
        rows = rows / rows.norm(dim=1, keepdim=True) * torch.linspace(1, 10, tasks).double()[:, None]
    assert agree(ours(), theirs(projector=EXACT), rows)


@pytest.mark.parametrize("method", [UPGrad, DualProj])
@pytest.mark.parametrize("kind", ["scales", "ill"])
def test_projections_hold_where_the_peer_is_not_sharp(method, kind):
    rows = jacobian(kind, 40)
    update = rows.mT @ method()(rows @ rows.mT)
    assert (rows @ update >= -1e-8 * rows.norm(dim=1) * update.norm()).all()


@sizes
@kinds
def test_config_agrees(kind, tasks):
    rows = jacobian(kind, tasks)
    ours, theirs = rows.mT @ ConFIG()(rows @ rows.mT), torchjd.aggregation.ConFIG()(rows)
    assert close(ours, theirs, rows) or both_are_0(ours, theirs, rows, kind, tasks)


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("kind", ["independent", "conflicting", "similar"])
def test_mgda_agrees_where_frank_wolfe_arrives(kind, tasks):
    assert agree(MGDA(), torchjd.aggregation.MGDAWeighting(1e-9, 20_000), jacobian(kind, tasks))


@kinds
@sizes
def test_mgda_has_no_duality_gap_and_is_never_longer_than_frank_wolfe(kind, tasks):
    given = gramian(kind, tasks)
    slopes = given @ MGDA()(given)
    assert MGDA()(given) @ slopes - slopes.min() <= 1e-8 * given.diagonal().min()
    ours, theirs = MGDA()(given), torchjd.aggregation.MGDAWeighting(1e-6, 500)(given)
    assert ours @ given @ ours <= (theirs @ given @ theirs) * (1 + 1e-9)


@pytest.mark.parametrize(("normalization", "power"), [("norm", 0), ("loss", 1), ("loss_norm", 0)])
def test_mgda_normalises_for_the_search_only(normalization, power):
    rows, losses = jacobian("independent", 3), torch.tensor([0.5, 1.0, 4.0]).double()
    scaled = rows / losses[:, None] if normalization != "norm" else rows
    scaled = scaled if power else scaled / rows.norm(dim=1, keepdim=True)
    weights = MGDA(normalization)(rows @ rows.mT, losses=losses)
    torch.testing.assert_close(weights, MGDA()(scaled @ scaled.mT))


@sizes
@pytest.mark.parametrize("kind", ["independent", "conflicting", "similar"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad_agrees_on_gradients_of_common_size(kind, tasks, alpha):
    rows = jacobian(kind, tasks)
    assert agree(FairGrad(alpha), torchjd.aggregation.FairGradWeighting(alpha), rows)


@sizes
@pytest.mark.parametrize("kind", ["independent", "ill", "conflicting", "scales", "tiny", "huge", "similar"])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_fairgrad_solves_its_equation_at_any_scale(kind, tasks, alpha):
    given = gramian(kind, tasks)
    weights = FairGrad(alpha)(given)
    torch.testing.assert_close(given @ weights, weights ** (-1 / alpha), rtol=1e-4, atol=0)


@sizes
@pytest.mark.parametrize("kind", ["independent", "ill", "conflicting", "scales", "tiny", "huge", "similar"])
def test_nash_solves_its_equation_and_has_a_known_length(kind, tasks):
    given = gramian(kind, tasks)
    weights = NashMTL(max_norm=None)(given)
    torch.testing.assert_close(given @ weights, 1 / weights, rtol=1e-5, atol=0)
    cut = NashMTL(max_norm=0.5)(given)
    assert (cut @ given @ cut).sqrt().item() == pytest.approx(0.5, rel=1e-6)
    torch.testing.assert_close(cut / cut.sum(), weights / weights.sum())


def test_nash_with_a_wide_cut_is_left_alone():
    given = gramian("independent", 3)
    assert torch.equal(NashMTL(max_norm=1.8)(given), NashMTL(max_norm=None)(given))


@pytest.mark.parametrize("cosine", [-0.999, -0.5, 0.0, 0.7])
def test_two_tasks_bargain_for_the_bisector(cosine):
    norms = torch.tensor([2.0, 0.01], dtype=torch.float64)
    given = torch.outer(norms, norms) * torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64)
    expected = 1 / (norms * math.sqrt(1 + cosine))
    torch.testing.assert_close(NashMTL(max_norm=None)(given), expected)
    torch.testing.assert_close(FairGrad(1.0)(given), expected)
    for method in (IMTLG(), ConFIG()):
        weights = method(given)
        torch.testing.assert_close(weights / weights.sum(), expected / expected.sum())


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_two_tasks_upgrad_is_half_of_pcgrad(seed):
    given = gramian("conflicting", 2, seed)
    torch.testing.assert_close(UPGrad()(given), PCGrad(seed=0)(given) / 2)


@sizes
@pytest.mark.parametrize("kind", ["independent", "scales", "tiny", "huge"])
def test_imtl_g_projects_equally(kind, tasks):
    rows = jacobian(kind, tasks)
    weights = IMTLG()(rows @ rows.mT)
    assert weights.sum().item() == pytest.approx(1)
    projections = rows @ (rows.mT @ weights) / rows.norm(dim=1)
    torch.testing.assert_close(projections, projections.mean().expand(tasks), rtol=1e-5, atol=0)


@sizes
@pytest.mark.parametrize("kind", ["independent", "conflicting", "scales"])
def test_aligned_gradients_are_orthogonal_and_of_one_length(kind, tasks):
    given = gramian(kind, tasks)
    values, vectors = torch.linalg.eigh(given)
    balance = values.min().sqrt() * vectors @ torch.diag(values**-0.5) @ vectors.mT
    torch.testing.assert_close(AlignedMTL()(given), balance.mean(1), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("tasks", [2, 3, 8, 12])
@pytest.mark.parametrize("kind", ["independent", "dependent", "conflicting", "similar"])
@pytest.mark.parametrize("c", [0.2, 0.9])
def test_cagrad_meets_the_papers_dual(kind, tasks, c):
    rows = jacobian(kind, tasks)
    rows, average = rows / rows.norm(), rows.mean(0) / rows.norm()
    update = rows.mT @ CAGrad(c)(rows @ rows.mT)
    assert (update - average).norm() <= c * average.norm() * (1 + 1e-6)
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(500, tasks, generator=generator, dtype=torch.float64) ** 4
    shares = torch.cat([shares / shares.sum(1, keepdim=True), torch.eye(tasks).double()])
    dual = shares @ rows @ average + c * average.norm() * (shares @ rows).norm(dim=1)
    assert (rows @ update).min() <= dual.min() + 1e-9
    best = CAGrad(c)(rows @ rows.mT) - 1 / tasks
    best = best / best.sum()
    reached = best @ rows @ average + c * average.norm() * (best @ rows).norm()
    assert (rows @ update).min().item() == pytest.approx(reached.item(), abs=1e-8)


def test_cagrad_rescaled_is_divided_by_the_authors_factor():
    given = gramian("conflicting", 3)
    torch.testing.assert_close(CAGrad(0.5, rescale=True)(given) * 1.25, CAGrad(0.5)(given))


def orders(weighting, tasks):
    """The orders that the next call of a weighting draws, as rows of the other tasks."""
    draws = type(weighting.draws)(0)
    draws.load_state_dict(weighting.draws.state_dict())
    generator = draws.step()
    order = torch.rand(tasks, tasks - 1, generator=generator).argsort(1)
    return (order + (order >= torch.arange(tasks)[:, None])).tolist()


@kinds
@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_pcgrad_is_the_papers_loop(kind, tasks):
    weighting, rows = PCGrad(seed=3), jacobian(kind, tasks).numpy()
    turned = rows.copy()
    for i, others in enumerate(orders(weighting, tasks)):
        for j in others:
            turned[i] -= min(0.0, turned[i] @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
    update = rows.T @ weighting(torch.tensor(rows @ rows.T)).numpy()
    np.testing.assert_allclose(update, turned.sum(0), rtol=1e-7, atol=1e-9 * np.abs(rows).max())


@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_gradvac_is_the_papers_loop(tasks):
    weighting, targets = GradVac(beta=0.4, seed=3), np.zeros((tasks, tasks))
    weighting.setup([f"task{i}" for i in range(tasks)])
    weighting.double()
    for number in range(4):
        rows = jacobian("conflicting", tasks, seed=number).numpy()
        turned = rows.copy()
        for i, others in enumerate(orders(weighting, tasks)):
            for j in others:
                ours, length = np.linalg.norm(turned[i]), np.linalg.norm(rows[j])
                seen, target = turned[i] @ rows[j] / ours / length, targets[i, j]
                if seen < target:
                    sine = math.sqrt(1 - target**2)
                    turned[i] += (
                        ours * (target * math.sqrt(1 - seen**2) - seen * sine) / length / sine * rows[j]
                    )
                targets[i, j] = 0.6 * target + 0.4 * seen
        update = rows.T @ weighting(torch.tensor(rows @ rows.T)).numpy()
        np.testing.assert_allclose(update, turned.sum(0), rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(weighting.targets.numpy(), targets, atol=1e-12)


def drawn(monkeypatch, order, leave_out):
    """Make TorchJD go through the tasks in our order; it draws once for each task."""
    rows = iter(enumerate(torch.tensor(order, dtype=torch.int64).reshape(len(order), -1)))

    def permutation(size):
        task, others = next(rows)
        # One of its loops counts the other tasks only, the other skips the task itself.
        drawn = others - (others > task).long() if leave_out else torch.cat([others, torch.tensor([task])])
        assert len(drawn) == size
        return drawn

    monkeypatch.setattr(torch, "randperm", permutation)


@kinds
@sizes
def test_pcgrad_agrees_in_the_same_order(kind, tasks, monkeypatch):
    weighting, given = PCGrad(seed=3), gramian(kind, tasks)
    drawn(monkeypatch, orders(weighting, tasks), leave_out=False)
    rows = jacobian(kind, tasks)
    theirs = torchjd.aggregation.PCGradWeighting()(given)
    assert close(rows.mT @ weighting(given), rows.mT @ theirs, rows)


@kinds
@sizes
def test_gradvac_agrees_in_the_same_order_but_for_a_constant(kind, tasks, monkeypatch):
    weighting, theirs = GradVac(beta=0.4, seed=3), torchjd.aggregation.GradVacWeighting(0.4, eps=0.0)
    weighting.setup([f"task{i}" for i in range(tasks)])
    weighting.double()
    for number in range(3):
        rows = jacobian(kind, tasks, seed=number)
        drawn(monkeypatch, orders(weighting, tasks), leave_out=True)
        expected = rows.mT @ theirs(rows @ rows.mT)
        found = rows.mT @ weighting(rows @ rows.mT)
        assert close(found, expected, rows) or both_are_0(found, expected, rows, kind, tasks)


@sizes
@kinds
def test_modo_and_sdmgrad_follow_their_peers(kind, tasks):
    pairs = [
        (MoDo(step_size=0.02, regularization=0.3), torchjd.aggregation.MoDoWeighting(0.02, 0.3)),
        (SDMGrad(lr=0.5), torchjd.aggregation.SDMGradWeighting(lr=0.5)),
    ]
    # Where the peer's 1e-8 is more than the gradients, they part.
    for ours, theirs in pairs[: 1 if kind == "tiny" else 2]:
        ours.setup([f"task{i}" for i in range(tasks)])
        ours.double()
        for number in range(10):
            first, second = (jacobian(kind, tasks, seed) for seed in (number, number + 100))
            product = first @ (first + 0.3 * second).mT
            torch.testing.assert_close(ours(product), theirs(product), rtol=1e-6, atol=1e-6)


@sizes
@pytest.mark.parametrize("build", [lambda: SDMGrad(lr=0.5), lambda: GradVac(beta=0.4, seed=0)])
def test_no_constant_is_felt_by_short_gradients(build, tasks):
    short, common = build(), build()
    for weighting in (short, common):
        weighting.setup([f"task{i}" for i in range(tasks)])
        weighting.double()
    for number in range(3):
        given = gramian("similar", tasks, seed=number)
        torch.testing.assert_close(short(1e-16 * given), common(given), rtol=1e-6, atol=1e-9)


@sizes
@kinds
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_smoothed_weights_follow_their_peer(decay, kind, tasks):
    ours = CRMOGM(AlignedMTL(), decay)
    ours.setup([f"task{i}" for i in range(tasks)])
    ours.double()
    inner = torchjd.aggregation.AlignedMTLWeighting()
    theirs = torchjd.aggregation.CRMOGMWeighting(inner, decay)
    for number in range(3):
        rows = jacobian(kind, tasks, seed=number)
        given = rows @ rows.mT
        assert close(rows.mT @ ours(given), rows.mT @ theirs(given), rows)


@pytest.mark.parametrize("method", [NashMTL, FairGrad])
def test_gradients_that_sum_to_zero_have_no_bargain(method):
    rows = jacobian("independent", 3)
    rows = rows - rows.mean(0)
    with pytest.warns(SolverWarning, match=r"no update helps.*condition .* for tasks task0, task1, task2"):
        weights = method()(rows @ rows.mT)
    assert torch.equal(weights, torch.zeros(3).double())


def test_imtl_g_that_would_ascend_says_so():
    # Norms that differ by 10^4 and three parameters: for some draws 1' G^-1 n < 0.
    grams = [rows @ rows.mT for rows in (jacobian("scales", 3, seed)[:, :3] for seed in range(100))]
    turned = [torch.linalg.solve(gram, gram.diagonal().sqrt()).sum() < 0 for gram in grams]
    assert 0 < sum(turned) < 100
    for gram, ascends in zip(grams, turned, strict=True):
        if ascends:
            with pytest.warns(SolverWarning, match="ascend"):
                weights = IMTLG()(gram)
            assert torch.equal(weights, torch.zeros(3).double())
        else:
            assert IMTLG()(gram).sum().item() == pytest.approx(1)
