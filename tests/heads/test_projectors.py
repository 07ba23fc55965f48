"""Projectors have exactly the users' form, so that their checkpoints load."""

import torch

from heads import BrainMTProjector, GeneticsProjector, TaskHead


def test_brainmt_projector_has_the_given_form():
    projector = BrainMTProjector()
    shapes = {name: tuple(value.shape) for name, value in projector.state_dict().items()}
    assert shapes == {
        "layers.0.weight": (1024, 512),
        "layers.0.bias": (1024,),
        "layers.3.weight": (512, 1024),
        "layers.3.bias": (512,),
        "layers.4.weight": (512,),
        "layers.4.bias": (512,),
    }
    assert [type(layer).__name__ for layer in projector.layers] == [
        "Linear",
        "GELU",
        "Dropout",
        "Linear",
        "LayerNorm",
    ]
    assert projector.layers[2].p == 0.1


def test_widths_and_training_only_dropout():
    projector = GeneticsProjector(7, 5, hidden_dim=3).eval()
    x = torch.randn(2, 7)
    assert projector(x).shape == (2, 5)
    assert torch.equal(projector(x), projector(x))
    assert TaskHead(7, 4)(x).shape == (2, 4)
