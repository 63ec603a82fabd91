import pytest
import torch
from torch import nn

from polytask import UserError
from polytask.models import MultiInput


class Counted(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.calls = []

    def forward(self, x):
        self.calls.append(tuple(x.shape))
        return super().forward(x)


def heads(features):
    return {"brake": nn.Linear(features, 2), "steer": nn.Linear(features, 1)}


def batch(rows=5):
    return {"left": torch.rand(rows, 3), "right": torch.rand(rows, 3), "speed": torch.rand(rows, 4)}


def test_the_output_is_the_formula():
    encoders = {"left": nn.Linear(3, 2), "speed": nn.Linear(4, 6)}
    model, x = MultiInput(encoders, heads(8), shared=nn.Linear(8, 8)), batch()
    fused = torch.cat([encoders["left"](x["left"]), encoders["speed"](x["speed"])], dim=1)
    torch.testing.assert_close(model(x)["brake"], model.heads["brake"](model.shared(fused)))


@pytest.mark.parametrize(("fusion", "factor"), [("sum", 2.0), ("mean", 1.0)])
def test_fusions_without_order(fusion, factor):
    model = MultiInput(dict.fromkeys(["left", "right"], nn.Identity()), {"a": nn.Identity()}, fusion=fusion)
    x = torch.rand(5, 3)
    torch.testing.assert_close(model({"left": x, "right": x})["a"], factor * x)


def test_an_encoder_that_inputs_share_is_stored_and_called_once():
    encoder = Counted(3, 2)
    model = MultiInput({"left": encoder, "speed": nn.Linear(4, 2), "right": encoder}, heads(6))
    x = batch()
    expected = torch.cat([encoder(x["left"]), model.encoders[1](x["speed"]), encoder(x["right"])], dim=1)
    encoder.calls.clear()
    torch.testing.assert_close(model.represent(x)["left", "speed", "right"], expected)
    assert encoder.calls == [(10, 3)]
    assert [name for name in model.state_dict() if name.startswith("encoders.")] == [
        f"encoders.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")
    ]


def test_rows_of_other_shapes_are_encoded_by_themselves():
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    model = MultiInput({"wide": encoder, "high": encoder}, {"a": nn.Identity()})
    x = {"wide": torch.rand(3, 1, 4, 8), "high": torch.rand(3, 1, 8, 4)}
    torch.testing.assert_close(model(x)["a"], torch.cat([encoder(x["wide"]), encoder(x["high"])], dim=1))


def test_a_task_needs_its_own_inputs_only():
    left, speed = Counted(3, 4), Counted(4, 4)
    model = MultiInput(
        {"left": left, "speed": speed}, heads(4), inputs={"brake": ["left"], "steer": ["speed"]}
    )
    model({"left": torch.rand(2, 3)}, 0)
    assert (len(left.calls), len(speed.calls)) == (1, 0)
    outputs = model(batch())
    assert (len(left.calls), len(speed.calls)) == (2, 1)
    assert outputs["steer"].shape == (5, 1)
    with pytest.raises(
        UserError, match=r"inputs: must be a dict with 'speed', got a dict without it\. In the batch: left\."
    ):
        model({"left": torch.rand(2, 3)}, "steer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoders": {}}, "encoders: at least one encoder is required, got none."),
        ({"encoders": [nn.Identity()]}, "encoders: must be a dict, got [Identity()]."),
        (
            {"encoders": {"left": nn.Linear}},
            "encoders.left: must be a torch.nn.Module, got the class Linear. Pass",
        ),
        ({"shared": 3}, "shared: must be a torch.nn.Module, got int."),
        (
            {"fusion": "concta"},
            "fusion: must be one of concat, sum, mean, got 'concta'. Did you mean 'concat'?",
        ),
        ({"inputs": {"brak": ["left"]}}, "inputs: no task is called 'brak'. Did you mean 'brake'?"),
        (
            {"inputs": {"brake": ["lefft"]}},
            "inputs.brake: must name inputs of the model, got 'lefft'. Did you mean 'left'?",
        ),
        ({"inputs": {"brake": "left"}}, "inputs.brake: must be a list of at least one input, got 'left'."),
        ({"inputs": {"brake": []}}, "inputs.brake: must be a list of at least one input, got []."),
    ],
)
def test_unusable_parts(options, message):
    with pytest.raises(UserError) as caught:
        MultiInput(**{"encoders": {"left": nn.Identity()}, "heads": heads(3), **options})
    assert str(caught.value).startswith(message)


def test_the_batch_has_to_be_a_dict():
    with pytest.raises(UserError, match=r"inputs: must be a dict with 'left', got a Tensor\."):
        MultiInput({"left": nn.Identity()}, heads(3))(torch.rand(2, 3))
