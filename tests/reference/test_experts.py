"""Architectures with experts and with conditioning, against what they must equal."""

from functools import partial

import pytest
import torch
from torch import nn

from polytask.gradients import Engine
from polytask.models import CGC, MLP, PLE, DSelectK, FiLM, LoRA, MMoE, MultiHead, Separate, SimpleCNN
from polytask.weighting import GramianSolution, GramianWeighting
from tests.cases import CONDITIONED, EXPERTS, TOWERS

EXPERT = partial(MLP, 5, [7], 4)
TASKS = {"a": 3, "b": 2}
X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def heads() -> dict[str, nn.Module]:
    return {task: nn.Linear(4, size) for task, size in TASKS.items()}


def plain(model, backbone) -> MultiHead:
    """Hard sharing with the model's heads."""
    return MultiHead(backbone, dict(model.heads.items()))


def assert_same(one, other, exact=True):
    assert list(one) == list(other)
    for task in one:
        if exact:
            assert torch.equal(one[task], other[task])
        else:
            torch.testing.assert_close(one[task], other[task])


def gradients(model, of):
    model.zero_grad()
    sum(output.square().sum() for output in model(X).values()).backward()
    return [parameter.grad for parameter in of]


def test_mmoe_with_one_expert_is_hard_sharing():
    model = MMoE(EXPERT, heads(), gate=5, num_experts=1)
    hard = plain(model, model.experts[0])
    assert_same(model(X), hard(X))
    own = list(hard.parameters())
    for one, other in zip(gradients(model, own), gradients(hard, own), strict=True):
        torch.testing.assert_close(one, other)


def test_mmoe_mixes_by_the_softmax_of_its_gates():
    model = MMoE(EXPERT, heads(), gate=5, num_experts=3)
    outputs = torch.stack([expert(X) for expert in model.experts])
    for task, found in model(X).items():
        gate = model.gates[task].logits.layers.linear1
        weights = torch.softmax(X @ gate.weight.T + gate.bias, dim=1)
        expected = sum(weights[:, i : i + 1] * outputs[i] for i in range(3))
        torch.testing.assert_close(found, model.heads[task](expected))


def test_mmoe_mixes_feature_maps():
    model = MMoE(partial(nn.Conv2d, 2, 4, 3), {"a": nn.Identity()}, gate=2 * 6 * 6, num_experts=2)
    x = torch.randn(3, 2, 6, 6)
    weights = model.gates["a"](x)
    expected = torch.einsum("ne,enchw->nchw", weights, torch.stack([expert(x) for expert in model.experts]))
    torch.testing.assert_close(model(x)["a"], expected)


def test_gates_of_tokens_weigh_each_token():
    model = MMoE(partial(nn.Linear, 5, 4), {"a": nn.Identity()}, gate=partial(nn.Linear, 5), num_experts=3)
    x = torch.randn(2, 7, 5)
    expected = torch.einsum("nle,enlf->nlf", model.gates["a"](x), torch.stack([e(x) for e in model.experts]))
    torch.testing.assert_close(model(x)["a"], expected)


def test_cgc_without_shared_experts_is_separate():
    model = CGC(EXPERT, heads(), gate=5, shared_experts=0, task_experts=1)
    networks = {task: nn.Sequential(model.level.own[task][0], head) for task, head in model.heads.items()}
    assert_same(model(X), Separate(networks)(X))


def test_cgc_without_task_experts_is_mmoe():
    model = CGC(EXPERT, heads(), gate=5, shared_experts=3, task_experts=0)
    other = MMoE(EXPERT, heads(), gate=5, num_experts=3)
    other.heads.load_state_dict(model.heads.state_dict())
    other.experts.load_state_dict(model.level.shared.state_dict())
    other.gates.load_state_dict(model.level.gates.state_dict())
    assert_same(model(X), other(X))


def test_cgc_weighs_its_own_experts_first():
    model = CGC(EXPERT, heads(), gate=5, shared_experts=2, task_experts={"a": 1, "b": 2})
    experts = [*model.level.own["b"], *model.level.shared]
    weights = model.level.gates["b"](X)
    expected = sum(weights[:, i : i + 1] * expert(X) for i, expert in enumerate(experts))
    torch.testing.assert_close(model(X, "b"), model.heads["b"](expected))


def test_ple_with_one_level_is_cgc():
    cgc = CGC(EXPERT, heads(), gate=5, shared_experts=2)
    ple = PLE([EXPERT], heads(), gates=[5], shared_experts=2)
    ple.heads.load_state_dict(cgc.heads.state_dict())
    ple.levels[0].load_state_dict(cgc.level.state_dict())
    assert_same(ple(X), cgc(X))


def test_ple_with_two_levels_by_hand():
    model = PLE([EXPERT, partial(MLP, 4, [], 4)], heads(), gates=[5, 4])
    first, second = model.levels
    experts = {task: first.own[task][0](X) for task in TASKS}
    shared = first.shared[0](X)

    def mixed(weights, outputs):
        return sum(weights[:, i : i + 1] * output for i, output in enumerate(outputs))

    z = {task: mixed(first.gates[task](X), [experts[task], shared]) for task in TASKS}
    z_shared = mixed(first.shared_gate(X), [*experts.values(), shared])
    for task, found in model(X).items():
        outputs = [second.own[task][0](z[task]), second.shared[0](z_shared)]
        expected = model.heads[task](mixed(second.gates[task](z[task]), outputs))
        torch.testing.assert_close(found, expected)


def test_dselect_k_with_one_expert_is_hard_sharing():
    model = DSelectK(EXPERT, heads(), num_experts=1, k=1)
    assert_same(model(X), plain(model, model.experts[0])(X))


@pytest.mark.parametrize("number", range(4))
def test_a_saturated_selector_takes_one_expert(number):
    model = DSelectK(EXPERT, heads(), num_experts=4, k=1)
    with torch.no_grad():
        for gate in map(model.gates.__getitem__, TASKS):
            gate.values.copy_(torch.tensor([1.0 if number & 1 else -1.0, 1.0 if number & 2 else -1.0, 0.0]))
    assert_same(model(X), plain(model, model.experts[number])(X))


def test_two_selectors_weigh_by_the_softmax_of_alpha():
    model = DSelectK(EXPERT, heads(), num_experts=2, k=2)
    alpha = torch.tensor([0.3, -0.5])
    with torch.no_grad():
        model.gates["a"].values.copy_(torch.tensor([-1.0, 1.0, *alpha]))
    torch.testing.assert_close(model.gates["a"](None), torch.softmax(alpha, dim=0))


def test_film_begins_as_the_plain_backbone():
    model = FiLM(EXPERT(), heads(), {"layers.linear1": 7})
    assert_same(model(X), plain(model, model.backbone)(X))


def test_film_scales_and_shifts_channels_of_images():
    model = FiLM(SimpleCNN(2, 4, 4), heads(), {"features.0": 32})
    unit = model.scales_and_shifts["b"][0]
    nn.init.normal_(unit.scale)
    nn.init.normal_(unit.shift)
    x = torch.randn(3, 2, 4, 4)
    features = model.backbone.features
    h = features[0](x) * unit.scale[None, :, None, None] + unit.shift[None, :, None, None]
    expected = model.heads["b"](model.backbone.classifier(features[1:](h).flatten(1)))
    torch.testing.assert_close(model(x, "b"), expected)
    assert torch.equal(model(x, "a"), model.heads["a"](model.backbone(x)))


def test_lora_begins_as_the_plain_backbone():
    model = LoRA(EXPERT(), heads(), rank=2, targets=["linear1", "linear2"])
    assert_same(model(X), plain(model, model.backbone)(X))


LAYERS = [
    (nn.Linear(5, 6), (3, 5)),
    (nn.Linear(5, 6, bias=False), (2, 3, 5)),
    (nn.Conv1d(2, 6, 3, padding=1, padding_mode="circular"), (3, 2, 8)),
    (nn.Conv2d(2, 6, (3, 1), stride=2, padding=1), (3, 2, 8, 7)),
    (nn.Conv2d(2, 6, 3, dilation=2, padding="same", padding_mode="reflect"), (3, 2, 8, 7)),
    (nn.Conv3d(2, 6, 2, bias=False), (3, 2, 4, 5, 4)),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="circular"), (3, 4, 8, 7)),
    (nn.Conv1d(4, 6, 3, groups=2, stride=2), (3, 4, 8)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_lora_merged_is_the_adapted_network(layer, shape):
    model = LoRA(nn.Sequential(layer), {"a": nn.Identity(), "b": nn.Tanh()}, 2, ["0"], alpha=3.0).double()
    for name in model.task_names:
        nn.init.normal_(model.adapters[name][0].up)
    x = torch.randn(shape, dtype=torch.float64)
    for task, expected in model(x).items():
        merged = model.merged(task)
        assert sum(p.numel() for p in merged.parameters()) == sum(p.numel() for p in layer.parameters())
        torch.testing.assert_close(merged(x, task), expected)
        assert not torch.allclose(model.backbone(x), expected)


def test_lora_weights_change_by_the_scaled_product():
    model = LoRA(nn.Sequential(nn.Linear(5, 6)), {"a": nn.Identity()}, 2, ["0"], alpha=3.0)
    adapter = model.adapters["a"][0]
    nn.init.normal_(adapter.up)
    change = model.merged("a").backbone[0].weight - model.backbone[0].weight
    torch.testing.assert_close(change, 3.0 / 2 * adapter.up @ adapter.down)


class Ones(GramianWeighting):
    """Weighs every task by one, and keeps the Gramian."""

    def solve(self, step):
        self.gramian = step.gramian
        return GramianSolution(torch.ones(len(step.gramian), dtype=torch.float64))


# One has nothing that is shared, and the other is drawn at random wherever it shares.
APART = ("CGC-separate", "LearningToBranch")
SHARING = [case for case in EXPERTS + CONDITIONED + TOWERS if case.name not in APART]


@pytest.mark.parametrize("case", SHARING, ids=str)
def test_the_engine_sees_every_shared_parameter(case):
    torch.manual_seed(0)
    model = case.build().double().train(not case.varies)
    x = torch.randn(4, *case.sample, dtype=torch.float64)

    def losses():
        outputs = model(x)
        outputs = outputs if isinstance(outputs, dict) else dict(zip(model.task_names, outputs, strict=True))
        return {task: output.square().mean() for task, output in outputs.items()}

    parameters = list(model.parameters())
    rows = []
    for loss in losses().values():
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])
    weighting = Ones()
    engine = Engine(model, weighting)
    engine.backward(losses())
    for parameter, *own in zip(parameters, *rows, strict=True):
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(grad, sum(own))
    shared = [sum(bool(gradient.any()) for gradient in own) > 1 for own in zip(*rows, strict=True)]
    jacobian = torch.stack(
        [torch.cat([g.flatten() for g, take in zip(row, shared, strict=True) if take]) for row in rows]
    )
    torch.testing.assert_close(weighting.gramian, jacobian @ jacobian.mT)
