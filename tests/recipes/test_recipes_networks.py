"""Networks against stored numbers: parameters, initial weights, and logits of the references' own modules at weights and images given by formulas.

The numbers of PreResNet were computed by `models/my_models/preresnet.py` of github.com/sadhikamalladi/svag with eps = 1e-12 (it has 0, which
torch refuses in training).
"""

import math

import pytest
import torch

from sdetools.recipes import networks


def fill(model):
    """Set the parameters, in their order, to a formula of their number."""
    at = 0
    with torch.no_grad():
        for p in model.parameters():
            i = torch.arange(at, at + p.numel(), dtype=torch.float64)
            wave, at = torch.cos(0.7 * i + (i * i) % 97), at + p.numel()
            values = wave * math.sqrt(4 / p[0].numel()) if p.ndim > 1 else 1 + 0.1 * wave
            p.copy_(values.reshape(p.shape))
    return model


def image(n, side):
    i = torch.arange(n * 3 * side * side, dtype=torch.float64)
    return torch.sin(0.3 * i + i % 11).reshape(n, 3, side, side)


REFERENCE = {
    ("batch", False): [1.049462261, 0.745603639, 0.871964694, 1.16810266, 0.949442854, 1.305438863, 0.88585955, 1.020027671, 1.075626691, 0.811722056],
    ("group", False): [-0.027784105, 1.199264903, 2.557505646, 0.870109367, 1.720973713, 0.977521939, 0.452475088, 1.47112633, 0.461473152, 0.329973925],
    ("batch", True): [3.599968507, 3.850045726, -0.264941429, -0.475368249, -3.000043302, 1.316397998, -0.081406312, 3.578616105, 2.275472972, 3.193862324],
}  # fmt: skip
"""Logits of the second of three images, in training mode, by normalisation and affine."""


@pytest.mark.parametrize(("norm", "affine"), REFERENCE)
def test_the_pre_activation_network_is_that_of_the_reference(norm, affine):
    """Logits, in double precision, depend on the order of layers and blocks, on strides and shortcuts, and on what follows the last block."""
    model = networks.PreResNet(norm=norm, affine=affine).double().train()
    assert sum(p.numel() for p in model.parameters()) == (467_098 if affine else 464_698)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == (466_448 if affine else 464_048)
    assert fill(model)(image(3, 32))[1].tolist() == pytest.approx(REFERENCE[norm, affine], abs=2e-9)


def test_the_post_activation_network_is_another():
    assert sum(p.numel() for p in networks.SmallResNet().parameters()) == 464_154
    logits = fill(networks.SmallResNet(affine=False).double().train())(image(3, 32))[1]
    assert logits.tolist() != pytest.approx(REFERENCE["batch", False], abs=0.1)


def test_weights_of_the_pre_activation_network_are_normal_with_variance_two_over_fan_in():
    """The reference divides by kernel size times input channels. Each standard deviation by a chi-squared test with a false-alarm rate of 1e-6."""
    torch.manual_seed(0)
    model = networks.PreResNet()
    tested = 0
    for part in model.modules():
        if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)):
            w, fan_in = part.weight, part.weight[0].numel()
            variance = float((w.detach().double() ** 2).mean()) * fan_in / 2
            assert abs(variance - 1) < 4.9 * math.sqrt(2 / w.numel()), (w.shape, variance)
            if (
                part.weight.shape[0] == 2 * part.weight.shape[1]
            ):  # the first convolutions of stages; fan-out would give a variance of 1/2
                assert abs(2 * variance - 1) > 4.9 * 2 * math.sqrt(2 / w.numel())
                tested += 1
    assert tested == 4 and not model.last.bias.any() and not any(p.requires_grad for p in model.last.parameters())
