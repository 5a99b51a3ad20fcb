"""Networks against stored numbers: parameters, initial weights, and logits of the references' own modules at weights and images given by formulas.

The numbers of PreResNet were computed by `models/my_models/preresnet.py` of github.com/sadhikamalladi/svag with eps = 1e-12 (it has 0, which
torch refuses in training), those of ResNet-50 by `torchvision.models.resnet50` of torchvision 0.29.1.
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


def test_resnet_50_is_torchvisions():
    model = networks.ResNet(*networks.RESNET50).double().train()
    assert sum(p.numel() for p in model.parameters()) == 25_557_032
    names = list(model.state_dict())
    assert len(names) == 320 and sum(b.numel() for b in model.buffers()) == 53_173
    assert names[:2] == ["conv1.weight", "bn1.weight"] and {
        "layer3.5.bn3.running_var",
        "layer4.0.downsample.0.weight",
        "fc.bias",
    } < set(names)
    logits = fill(model)(image(3, 64))[1, :6].tolist()
    assert logits == pytest.approx([0.746607105, -0.231018642, 2.704468196, 1.486986299, 2.97871196, 2.383616529], abs=2e-9)
    logits = model.eval()(image(3, 64))[1, :3].tolist()  # after one update of the running statistics
    assert logits == pytest.approx([-3.994156059, -0.207705742, 9.887833641], abs=2e-9)


def test_initial_weights_are_those_of_goyal_et_al():
    """Zero gains in the 16 last normalisations of blocks, N(0, 0.01) in the last layer; chi-squared tests with a false-alarm rate of 1e-6 each."""
    model = networks.initialise(networks.ResNet(*networks.RESNET50), 7)
    gains = {
        name: p
        for name, p in model.named_parameters()
        if name.endswith((".bn3.weight", "bn1.weight", ".bn2.weight", ".downsample.1.weight"))
    }
    zero = {name for name, p in gains.items() if not p.any()}
    assert len(gains) == 53 and len(zero) == 16 and all(name.endswith(".bn3.weight") for name in zero)
    assert all(bool((p == 1).all()) for name, p in gains.items() if name not in zero)
    w = model.fc.weight.detach().double()
    assert abs(float((w**2).mean()) / 1e-4 - 1) < 4.9 * math.sqrt(2 / w.numel()) and not model.fc.bias.any()
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):
            w = part.weight.detach().double()
            fan_out = part.out_channels * part.kernel_size[0] ** 2
            assert abs(float((w**2).mean()) * fan_out / 2 - 1) < 4.9 * math.sqrt(2 / w.numel())
    x = torch.rand(2, 64, 8, 8)
    block = networks.initialise(torch.nn.Sequential(networks.BLOCKS["bottleneck"](64, 64, 1)), 1)
    assert torch.equal(block(x), x)  # a block is the identity on the outputs of rectifiers


def test_torchvisions_network_has_the_same_bits():
    library = networks.torchvision()
    if library is None:
        pytest.skip("torchvision is not installed, or does not import beside this torch")
    own, other = networks.initialise(networks.ResNet(*networks.RESNET50), 3), networks.initialise(library.models.resnet50(), 3)
    assert own.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in own.state_dict().items())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for model in (own, other):
        model(x).square().sum().backward()
    assert torch.equal(own(x), other(x))
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(own.parameters(), other.parameters()))
