"""State dictionaries of one optimiser loaded into another: 20 more steps agree with the source's to 1e-12, or loading is refused."""

import copy
import itertools

import pytest
import torch

from sdetools.bridge import conversion, torch_optimisers as ours

CLASSES = {cls.__name__: cls for cls in ours.FAMILY.values()}
LINEAR = ["SGDM", "HeavyBall", "QHM"]
PLAIN = ["SGD", *LINEAR, "Nesterov", "PNM", "SGDF"]
"""Methods of which plain SGD is a special case."""


def make(cls, **settings):
    def of(groups):
        extra = {"generator": torch.Generator().manual_seed(3)} if cls is ours.RandomScaling else {}
        return cls(groups, **{"lr": 0.1} | settings | extra)

    return of


OURS = {
    "SGD": (make(ours.SGD), PLAIN),
    "SGDM": (make(ours.SGDM), LINEAR),
    "HeavyBall": (make(ours.HeavyBall, lr=0.02), LINEAR),
    "Nesterov": (make(ours.Nesterov, lr=0.02), ["Nesterov", "QHM"]),
    "QHM": (make(ours.QHM, momentum=0.9, nu=0.6), ["QHM"]),
    "PNM": (make(ours.PNM, b0=0.8), ["PNM"]),
    "SNGM": (make(ours.SNGM), ["SNGM"]),
    "RandomScaling": (make(ours.RandomScaling), ["RandomScaling"]),
    "SGDF": (make(ours.SGDF, b2=0.99), ["SGDF"]),
    # special cases that equal another method or plain SGD
    **{f"{name}, momentum 0": (make(CLASSES[name], momentum=0.0), PLAIN) for name in ("SGDM", "HeavyBall", "Nesterov")},
    "QHM, nu 0": (make(ours.QHM, momentum=0.9, nu=0.0), PLAIN),
    "QHM, nu 1": (make(ours.QHM, momentum=0.9, nu=1.0), LINEAR),
    "QHM, nu = momentum": (make(ours.QHM, momentum=0.9, nu=0.9), ["QHM", "Nesterov"]),
    "PNM, both 0": (make(ours.PNM, momentum=0.0, b0=0.0), PLAIN),
    "PNM, b0 0": (make(ours.PNM, b0=0.0), ["PNM"]),
    "SGDF, momentum 0": (make(ours.SGDF, momentum=0.0), PLAIN),
    "SGDM, decoupled": (make(ours.SGDM, decoupled=True), LINEAR),
    "HeavyBall, decoupled": (make(ours.HeavyBall, lr=0.02, decoupled=True, maximize=True), LINEAR),
}


def torch_cases():
    switches = [
        {"weight_decay": decay, "maximize": maximize} | options
        for decay, maximize in itertools.product((0.0, 0.05), (False, True))
        for options in ({}, {"foreach": True}, {"foreach": False}, {"fused": True})
    ]
    for mu, damping, nesterov in [(0, 0, 0), (0, 0.3, 0), (0.8, 0, 0), (0.8, 0.8, 0), (0.8, 0.3, 0), (0.8, 0, 1)]:
        takes = PLAIN if mu == 0 else ["Nesterov", "QHM"] if nesterov else LINEAR
        for more in switches:
            settings = {"lr": 0.02, "momentum": mu, "dampening": damping, "nesterov": bool(nesterov)} | more
            shown = ", ".join(f"{name} {value}" for name, value in settings.items() if value)
            yield f"torch SGD, {shown}", (make(torch.optim.SGD, **settings), takes)


TORCH = dict(torch_cases())


def groups_like(params=None):
    """Return three parameters in two groups."""
    if params is None:
        generator = torch.Generator().manual_seed(1)
        params = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((3, 2), (4,), (5,))]
    params = [torch.nn.Parameter(p.detach().clone()) for p in params]
    return params, [{"params": params[:2]}, {"params": params[2:]}]


def train(optimizer, params, begin, steps, moves=True):
    """Take steps on quadratics with noise that is a function of the step, and with varying learning rates."""
    generator = torch.Generator().manual_seed(17 + begin)
    sign = -1 if optimizer.param_groups[0]["maximize"] else 1
    for k in range(steps):
        for group in optimizer.param_groups if moves else ():
            group["lr"] = group["lr"] * (0.8 if k % 3 else 1.4)
        for i, p in enumerate(params):
            p.grad = sign * (0.5 * (i + 1) * p.detach() + torch.randn(p.shape, dtype=p.dtype, generator=generator))
        optimizer.step()


def trained(source, steps, vary=True):
    """Return an optimiser and its parameters after some steps."""
    params, groups = groups_like()
    one = source(groups)
    for group, factor in zip(one.param_groups, (1.0, 1.5)) if vary else ():
        group["lr"] *= factor
        group["initial_lr"] = group["lr"]
        if factor > 1 and group.get("momentum") and not group.get("dampening") and group.get("nu", 1) in (1.0, 0.6, 0.0):
            group["momentum"] = 0.7
        if factor > 1:
            group["weight_decay"] = 0.1
    train(one, params, 0, steps)
    return one, params


def max_difference(one, params, target, steps=20):
    """Return the largest difference between an optimiser that continues and another one that loads its state."""
    taken, groups = groups_like(params)
    other = target(groups)
    saved = copy.deepcopy(one.state_dict())  # as from a file: torch shares buffers of the same type
    other.load_state_dict(saved)
    assert saved["param_groups"] == one.state_dict()["param_groups"]  # the dictionary is not modified
    for now, kept in zip(other.param_groups, one.param_groups):
        assert now["lr"] / now["initial_lr"] == pytest.approx(kept["lr"] / kept["initial_lr"])
    for optimizer, own in ((one, params), (other, taken)):
        train(optimizer, own, 100, steps)
    return max(float((a - b).detach().abs().max()) for a, b in zip(params, taken))


@pytest.mark.sample(44)
@pytest.mark.parametrize("steps", [0, 7])
@pytest.mark.parametrize("name", [*OURS, *TORCH])
def test_each_pair_continues_with_the_same_steps_or_is_refused(name, steps):
    source, takes = (OURS | TORCH)[name]
    first_gradient = name in TORCH and "momentum" in name and "dampening" in name and steps == 0
    for target, cls in CLASSES.items():
        one, params = trained(source, steps)
        if target in takes and not first_gradient:
            assert max_difference(one, params, make(cls)) < 1e-12, target
            continue
        with pytest.raises(ValueError, match=r"^`state_dict` .*; got .*\.$") as error:
            max_difference(one, params, make(cls))
        assert "\n" not in str(error.value)
        if not first_gradient:
            assert str(error.value).endswith(f"Load it into {' or '.join(sorted(takes, key=[*conversion.NUMBERS].index))}.")


@pytest.mark.parametrize("name", ["SGDM", "HeavyBall", "Nesterov"])
def test_buffers_loaded_without_conversion_give_other_steps(name):
    """Negative control: unconverted buffers and learning rates under another update rule."""
    one, params = trained(OURS[name][0], 7)
    for target in {"SGDM", "HeavyBall", "Nesterov"} - {name}:
        taken, groups = groups_like(params)
        other = make(CLASSES[target])(groups)
        unnamed = copy.deepcopy(one.state_dict())
        for group in unnamed["param_groups"]:
            del group["method"]
        other.load_state_dict(unnamed)
        again = copy.deepcopy(one)
        own = [p for group in again.param_groups for p in group["params"]]
        train(again, own, 100, 20)
        train(other, taken, 100, 20)
        assert max(float((a - b).detach().abs().max()) for a, b in zip(own, taken)) > 1e-2


@pytest.mark.parametrize("target", CLASSES)
@pytest.mark.parametrize(
    "theirs",
    [
        *(make(torch.optim.Adam, **{switch: True}) for switch in ("amsgrad", "maximize", "foreach", "fused", "capturable", "differentiable")),
        make(torch.optim.Adam, weight_decay=0.1), make(torch.optim.Adam, decoupled_weight_decay=True), make(torch.optim.AdamW),
        make(torch.optim.RMSprop, momentum=0.9, centered=True), make(torch.optim.NAdam), make(torch.optim.Adagrad),
        make(torch.optim.Rprop), make(torch.optim.ASGD), make(torch.optim.Adadelta), make(torch.optim.Adamax), make(torch.optim.RAdam),
    ],
)  # fmt: skip
def test_other_methods_of_torch_are_refused(target, theirs):
    (_, groups), (_, own) = groups_like(), groups_like()
    with pytest.raises(ValueError, match=r"^`state_dict` must be of .*; got one with .* in its groups\.$"):
        make(CLASSES[target])(own).load_state_dict(theirs(groups).state_dict())


def test_the_kind_of_weight_decay_is_that_of_the_dictionary():
    """It is not that of the optimiser that loads the dictionary."""
    for coupled in (False, True):
        one, params = trained(make(ours.HeavyBall, lr=0.02, decoupled=not coupled), 7)
        assert max_difference(one, params, make(ours.SGDM, decoupled=coupled)) < 1e-12
    one, params = trained(make(torch.optim.SGD, momentum=0.8, weight_decay=0.1), 7)
    assert max_difference(one, params, make(ours.SGDM, decoupled=True, maximize=True)) < 1e-12


def test_older_dictionaries_are_completed_with_defaults():
    for name, cls in CLASSES.items():
        one, params = trained(OURS[name][0], 7)
        saved = copy.deepcopy(one.state_dict())
        for group in saved["param_groups"]:
            for key in ("method", "decoupled", "foreach", "maximize"):
                del group[key]
        taken, groups = groups_like(params)
        other = make(cls, maximize=True, decoupled=True)(groups)
        other.load_state_dict(saved)
        assert not other.param_groups[0]["maximize"] and other.param_groups[0]["method"] == name
        train(one, params, 100, 20)
        train(other, taken, 100, 20)
        assert all(torch.equal(a, b) for a, b in zip(params, taken))
    for theirs in ({"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}):
        one, params = trained(make(torch.optim.SGD, lr=0.02, **theirs), 7)
        saved = copy.deepcopy(one.state_dict())
        for group in saved["param_groups"]:
            for key in ("maximize", "foreach", "differentiable", "fused", *(() if "nesterov" in theirs else ("nesterov",))):
                del group[key]
        taken, groups = groups_like(params)
        other = make(ours.QHM)(groups)
        other.load_state_dict(saved)
        train(one, params, 100, 20)
        train(other, taken, 100, 20)
        assert max(float((a - b).detach().abs().max()) for a, b in zip(params, taken)) < 1e-12


def test_a_dictionary_without_a_method_name_is_identified_by_its_hyperparameters():
    one, params = trained(OURS["QHM, nu 1"][0], 7)
    saved = copy.deepcopy(one.state_dict())
    for group in saved["param_groups"]:
        del group["method"]
    taken, groups = groups_like(params)
    other = make(ours.SGDM)(groups)
    other.load_state_dict(saved)
    train(one, params, 100, 20)
    train(other, taken, 100, 20)
    assert max(float((a - b).detach().abs().max()) for a, b in zip(params, taken)) < 1e-12
    heavy = trained(OURS["HeavyBall"][0], 1)[0].state_dict()
    for group in heavy["param_groups"]:
        del group["method"]
    with pytest.raises(ValueError, match=r"may be of SGDM, HeavyBall, .*Write its name into them: group\['method'\] = 'SGDM'"):
        make(ours.QHM)(groups_like()[1]).load_state_dict(heavy)


def test_buffers_that_are_none_count_as_absent():
    one, params = trained(make(torch.optim.SGD, lr=0.02, momentum=0.8), 0)
    saved = copy.deepcopy(one.state_dict())
    saved["state"] = {i: {"momentum_buffer": None} for i in range(3)}
    taken, groups = groups_like(params)
    other = make(ours.SGDM)(groups)
    other.load_state_dict(saved)
    train(one, params, 100, 20)
    train(other, taken, 100, 20)
    assert max(float((a - b).detach().abs().max()) for a, b in zip(params, taken)) < 1e-12


def test_a_frozen_parameter_needs_no_first_gradient():
    params, groups = groups_like()
    params[0].requires_grad_(False)
    one = torch.optim.SGD(groups, lr=0.02, momentum=0.8, dampening=0.3)
    for p in params[1:]:
        p.grad = torch.ones_like(p)
    one.step()
    taken, groups = groups_like(params)
    taken[0].requires_grad_(False)
    other = ours.SGDM(groups, lr=1.0)
    other.load_state_dict(one.state_dict())
    assert other.param_groups[0]["lr"] == pytest.approx(0.02 * 0.7 / 0.2)
    taken[0].requires_grad_(True)
    with pytest.raises(ValueError, match=r"got none for 1 of them\. Take a step with it first"):
        other.load_state_dict(one.state_dict())


def test_hyperparameters_that_are_tensors():
    params, groups = groups_like()
    one = torch.optim.SGD(groups, lr=torch.tensor(0.02, dtype=torch.float64), momentum=0.8, weight_decay=0.1, foreach=False)
    train(one, params, 0, 7, moves=False)
    taken, groups = groups_like(params)
    other = ours.SGDM(groups, lr=1.0)
    other.load_state_dict(one.state_dict())
    train(one, params, 100, 20, moves=False)
    train(other, taken, 100, 20, moves=False)
    assert max(float((a - b).detach().abs().max()) for a, b in zip(params, taken)) < 1e-12


@pytest.mark.parametrize("theirs", [torch.optim.lr_scheduler.OneCycleLR, torch.optim.lr_scheduler.CyclicLR])
def test_learning_rates_that_schedulers_store_in_groups_are_converted(theirs):
    limits = {"max_lr": 0.04, "cycle_momentum": False} | (
        {"base_lr": 0.01} if theirs is torch.optim.lr_scheduler.CyclicLR else {"total_steps": 40}
    )
    params, groups = groups_like()
    one = torch.optim.SGD(groups, lr=0.02, momentum=0.8)
    scheduler = theirs(one, **limits)
    train(one, params, 0, 7, moves=False)
    other = ours.SGDM(groups_like()[1], lr=1.0)
    other.load_state_dict(one.state_dict())
    rates = {"initial_lr", "max_lr", "min_lr", "lr"} & one.param_groups[0].keys()
    assert len(rates) >= 2
    for name in rates:
        assert other.param_groups[1][name] == pytest.approx(one.param_groups[1][name] / 0.2)
    del scheduler


def test_added_groups_are_converted_and_other_numbers_of_groups_are_refused():
    params, groups = groups_like()
    one = ours.HeavyBall(groups[:1], lr=0.02, momentum=0.8)
    one.add_param_group({**groups[1], "momentum": 0.5})
    train(one, params, 0, 7)
    taken, groups = groups_like(params)
    other = ours.SGDM(groups, lr=1.0)
    other.load_state_dict(one.state_dict())
    train(one, params, 100, 20)
    train(other, taken, 100, 20)
    assert max(float((a - b).detach().abs().max()) for a, b in zip(params, taken)) < 1e-12
    for other_groups in (groups_like()[1][:1], [groups_like()[0]]):
        flat = other_groups if isinstance(other_groups[0], dict) else [{"params": other_groups[0]}]
        with pytest.raises(ValueError, match="different number of parameter groups"):
            ours.SGDM(flat, lr=1.0).load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="doesn't match the size"):
        ours.SGDM([{"params": taken[:1]}, {"params": taken[1:]}], lr=1.0).load_state_dict(one.state_dict())


class Logged(ours.SGDM):
    """A user-defined class with the steps of SGDM."""

    def zero_grad(self, set_to_none=True):
        super().zero_grad(set_to_none)


class Doubled(ours.SGDM):
    """A user-defined update rule."""

    def update(self, params, grads, states, group):
        super().update(params, [2 * g for g in grads], states, group)


def test_user_defined_classes():
    """They are identified by their steps: a class that overrides the update rule is not mistaken for its base class."""
    for cls, same in ((Logged, True), (Doubled, False)):
        one, params = trained(make(cls), 7)
        assert max_difference(one, params, make(cls)) == 0
        one, params = trained(make(cls), 7)
        if same:
            assert max_difference(one, params, make(ours.HeavyBall)) < 1e-12
        else:
            with pytest.raises(ValueError, match=r"got that of .*Doubled\. Load it into .*Doubled"):
                max_difference(one, params, make(ours.HeavyBall))
            with pytest.raises(ValueError, match="Doubled can take; got that of HeavyBall"):
                make(cls)(groups_like()[1]).load_state_dict(trained(OURS["HeavyBall"][0], 1)[0].state_dict())


def updated(saved, **entries):
    for group in saved["param_groups"]:
        group.update(entries)
    return saved


@pytest.mark.parametrize(
    ("modify", "message"),
    [
        (lambda d: {"weight": torch.ones(2)}, "must be an optimiser's.*the model's"),
        (lambda d: updated(d, lr=-1.0), "`lr` must be at least 0"),
        (lambda d: updated(d, momentum=1.0), "`momentum` must lie in"),
        (lambda d: updated(d, method="Adam"), "got that of Adam"),
        (lambda d: d | {"state": {0: {"momentum_buffer": torch.ones(7)}}}, r"shape of its parameter, \(3, 2\); got \(7,\)"),
        (lambda d: d | {"state": {0: {"exp_avg": torch.ones(3, 2)}}}, "got no momentum_buffer, but exp_avg"),
        (lambda d: updated(d, method="PNM", b0=0.3), "got that of PNM with momentum=0.8, b0=0.3. Load it into PNM"),
    ],
)  # fmt: skip
def test_invalid_dictionaries_are_refused(modify, message):
    one, _ = trained(make(ours.SGDM, momentum=0.8), 3, vary=False)
    with pytest.raises(ValueError, match=message):
        make(ours.SGDM)(groups_like()[1]).load_state_dict(modify(one.state_dict()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.8, "dampening": 1.0}, "dampening=1.0.*Only torch.optim.SGD itself"),
        ({"momentum": 0.8, "dampening": 1.5}, "dampening=1.5.*Only torch.optim.SGD itself"),
        ({"momentum": 0.8, "differentiable": True}, "`differentiable` of the groups must be False"),
        ({"momentum": 1.2}, "`momentum` must lie in"),
    ],
)
def test_unsupported_settings_of_torch_are_refused(settings, message):
    one = make(torch.optim.SGD, **settings)(groups_like()[1])
    for p in (p for group in one.param_groups for p in group["params"]):
        one.state[p]["momentum_buffer"] = torch.ones_like(p)
    with pytest.raises(ValueError, match=message):
        make(ours.SGDM)(groups_like()[1]).load_state_dict(one.state_dict())


def test_groups_of_torch_with_entries_of_another_method_are_refused():
    one = make(torch.optim.SGD, momentum=0.8)(groups_like()[1])
    with pytest.raises(ValueError, match="got one with caution, which neither has"):
        make(ours.SGDM)(groups_like()[1]).load_state_dict(updated(one.state_dict(), caution=False))


def test_a_pickled_optimiser_of_an_older_version_is_completed():
    one, _ = trained(make(ours.SGDM), 3)
    for group in one.param_groups:
        del group["method"], group["maximize"]
    again = copy.deepcopy(one)
    assert again.param_groups[0]["method"] == "SGDM" and again.param_groups[1]["maximize"] is False
