"""Diagnosis: the terms of Lemma 2.4 and the sharpness against dense matrices, and the advice where the answer is known."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import sdetools as st
from sdetools.bridge import Batches, diagnose, loss_of_module
from sdetools.bridge.curvature import TOLERANCE
from sdetools.bridge.hessian_products import Derivatives, _agree, _doubled
from sdetools.bridge.modules import Objective
from sdetools.bridge.population import Population


def digits(n=240):
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return torch.as_tensor(data.data[:n] / 16.0), torch.as_tensor(data.target[:n])


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(64, 3), torch.nn.Tanh(), torch.nn.Linear(3, 10)).double()


def dense(x, y, size):
    """Return |grad L|^2, grad L^T H grad L, tr(H Sigma), tr(Sigma) and lambda_max from dense matrices."""
    loss = loss_of_module(network(), F.cross_entropy, x, y)
    g, h = loss.gradient(loss.start), loss.hessian(loss.start)
    sigma = st.noise.minibatch(loss, size, replace=False).covariance(loss.start)
    return np.array([g @ g, g @ h @ g, np.trace(h @ sigma), np.trace(sigma), np.linalg.eigvalsh(h)[-1]])


def test_exact_terms_equal_those_of_dense_matrices():
    x, y = digits()
    found = diagnose(network(), F.cross_entropy, (x, y), lr=0.01, batch_size=8, seeds=0, exact=True)
    own = [found.descent.value, found.curvature.value, found.noise.value, found.variance.value, found.sharpness.value]
    expected = dense(x, y, 8)
    assert np.abs(np.array(own) / expected - 1)[:4].max() < 1e-9
    assert abs(own[4] / expected[4] - 1) < 1e-3


def test_estimated_terms_agree_with_the_exact_ones():
    """|z| < 5 with the jackknife standard error for each of four terms; Student's t with 7 degrees of freedom: false-alarm rate 0.6 %."""
    x, y = digits()
    found = diagnose(network(), F.cross_entropy, (x, y), lr=0.01, batch_size=8, seeds=0, batches=2048)
    expected = dense(x, y, 8)
    for quantity, exact in zip((found.descent, found.curvature, found.noise, found.variance), expected):
        error = (quantity.high - quantity.low) / 2 / 2.365
        assert abs(quantity.value - exact) < 5 * error
        assert error < 0.3 * abs(exact)
    # negative control: the square of one noisy gradient is a biased estimate of |grad L|^2
    assert found.descent.high < expected[0] + expected[3] / 2


def test_the_model_and_the_generator_are_not_changed():
    x, y = digits(64)
    model = network()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    diagnose(model, F.cross_entropy, (x, y), lr=0.01, batch_size=8, seeds=2, batches=16)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def quadratic(top):
    """Return a linear model and data for least squares with known Hessian eigenvalues up to `top`."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 1, bias=False).double()
    rows = (
        torch.eye(6, dtype=torch.float64).repeat(40, 1) * torch.linspace(0.5, 1, 6).repeat(40)[:, None] * math.sqrt(6 * top / 2)
    )
    return model, (rows, 0.1 * torch.randn(240, 1, dtype=torch.float64) + rows.sum(1, keepdim=True))


@pytest.mark.sample(1)
@pytest.mark.parametrize(("lr", "answer"), [(0.001, "drop"), (0.005, "drop"), (0.03, "keep")])
def test_advice_on_a_quadratic_with_a_known_stability_limit(lr, answer):
    """lambda_max = 10: plain SGD at lr / (1 - 0.9) is stable below lr = 0.02, momentum below 0.38."""
    model, data = quadratic(10.0)
    found = diagnose(model, F.mse_loss, data, lr=lr, momentum=0.9, batch_size=48, seeds=6, trial=True)
    assert abs(found.sharpness.value - 10) < 0.1
    assert found.plain_lr == pytest.approx(10 * lr)
    assert found.trial.advice == answer == found.least_squares and found.advice in (answer, "unsure")
    assert found.advice in str(found).splitlines()[-1]
    assert found.trial.share.value == (answer == "keep") == (found.keep_probability > 0.5)


def test_freed_bytes_are_those_of_the_buffer():
    x, y = digits(64)
    model = network()
    found = diagnose(model, F.cross_entropy, (x, y), lr=0.01, batch_size=8, seeds=0, batches=16)
    assert found.freed == 8 * sum(p.numel() for p in model.parameters())


def test_dictionaries_as_batches_and_batch_normalisation():
    x, y = digits(64)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10)).double()
    rows = [{"pixels": a, "label": b} for a, b in zip(x, y)]
    loader = torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True)
    found = diagnose(
        model,
        None,
        loader,
        lr=0.01,
        loss_of=lambda m, b: F.cross_entropy(m(b["pixels"]), b["label"]),
        seeds=2,
        batches=16,
    )
    assert found.batch_size == 8 and np.isfinite(found.sharpness.value)
    with pytest.raises(ValueError, match="mixes the samples"):
        diagnose(model, F.cross_entropy, (x, y), lr=0.01, batch_size=8, exact=True)


def test_batches_are_a_function_of_seed_and_number():
    data = torch.arange(10), torch.arange(10)
    one, other = Batches(data, 3), Batches(data, 3)
    later = [one.at(7, k)[0].tolist() for k in (5, 0, 2)]
    assert later == [other.at(7, k)[0].tolist() for k in (5, 0, 2)]
    assert later[1] != one.at(8, 0)[0].tolist()
    assert len({i for k in range(3) for i in one.at(7, k)[0].tolist()}) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "`lr` must be positive"),
        ({"lr": -1.0}, "`lr` must be positive"),
        ({"momentum": 1.0}, "momentum"),
        ({"batch_size": 999}, "at most the number of samples, 64"),
        ({"batch_size": None}, "batch_size"),
        ({"batches": 3}, "batches"),
        ({"seeds": 1}, "`seeds`"),
        ({"form": "adam"}, "one of"),
        ({"data": iter(())}, "stream that is empty"),
        ({"data": (torch.zeros(3), torch.zeros(4))}, "one row per sample"),
        ({"loss": "mse"}, "`loss` must be a function"),
        ({"model": "net"}, r"torch\.nn\.Module"),
    ],
)
def test_invalid_arguments_are_refused(change, message):
    settings = {"model": network(), "loss": F.cross_entropy, "data": digits(64), "lr": 0.01, "batch_size": 8} | change
    with pytest.raises(ValueError, match=message):
        diagnose(**settings)


def test_dropout_is_reproducible_and_the_callers_generator_is_not_changed():
    torch.manual_seed(5)
    x = torch.randn(64, 4)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    loss = torch.nn.functional.mse_loss
    before = torch.get_rng_state()
    first = diagnose(model, loss, (x, x[:, :1]), lr=0.01, batch_size=8, batches=16, seeds=2)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(7)
    again = diagnose(model, loss, (x, x[:, :1]), lr=0.01, batch_size=8, batches=16, seeds=2)
    assert first.to_json() == again.to_json()


def test_advice_is_unsure_if_the_run_with_momentum_diverges():
    torch.manual_seed(5)
    x = torch.randn(64, 4)
    found = diagnose(
        torch.nn.Linear(4, 1), torch.nn.functional.mse_loss, (x, x[:, :1]), lr=1e4, batch_size=8, batches=16, seeds=2
    )
    assert found.least_squares == "unsure" and "momentum diverges" in found.regime and found.advice == "unsure"
    assert math.isnan(found.keep_probability) and "learning rate is wrong" in found.reasons[-2] and found.diverged == 1
    assert '"keep_probability": null' in found.to_json()


QUICK = {"lr": 0.01, "batch_size": 8, "batches": 16, "seeds": 0}


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inward, self.outward = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)

    def forward(self, x):
        q = self.inward(x.reshape(-1, 1, 2, 4))
        return self.outward(F.scaled_dot_product_attention(q, q, q)).mean(dim=(1, 2))


class Hidden(torch.autograd.Function):
    """x^2 with a backward that hides x from torch, whose second derivative is therefore wrong (that of a linear function)."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x**2

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.x * g


class Squared(torch.nn.Linear):
    def forward(self, x):
        return Hidden.apply(super().forward(x))


class Bag(torch.nn.Module):
    """The mean of embeddings of words: by `EmbeddingBag`, which torch differentiates once, or by `Embedding`."""

    def __init__(self, once):
        super().__init__()
        self.once, self.weight = once, torch.nn.Parameter(torch.randn(9, 8))

    def forward(self, words):
        return F.embedding_bag(words, self.weight) if self.once else F.embedding(words, self.weight).mean(dim=1)


def test_a_loss_that_mixes_samples_is_not_taken_for_a_mean_by_one_batch():
    """Sample 7 of 256 makes the loss of its batch no mean of its pieces'. A batch of 64 lacks it with probability 3/4, three batches with .42.

    Of 200 seeds, 84 +- 7 see three batches without it, and 150 +- 6 one: 117 lies 4.7 standard errors from both, a false alarm in 7e5.
    """
    net, x = torch.nn.Linear(1, 1), torch.arange(256.0)[:, None]
    mean = lambda out, number: out.mean()  # noqa: E731
    mixed = lambda out, number: out.mean() + len(out) * (number == 7).sum()  # noqa: E731
    means = []
    for loss in (mean, mixed):
        source = Batches((x / 256, x), 64)
        own = Derivatives(net, Objective(loss), source.rows(list(range(64))))
        means.append(sum(Population(own, source, seed).kind == "mean" for seed in range(200)))
    assert means[0] == 200 and 40 < means[1] < 117


@pytest.mark.parametrize("first", ["linear", "bag"])
def test_kinks_of_many_samples_are_no_curvature(first):
    """relu with 100,000 kinks: differences of gradients over steps of 1e-5 cross some, and are then wrong by factors.

    Second derivatives by autograd stay in use, and where there are none, differences are right. The reference is the dense Hessian of the twice
    differentiable form in double precision, by autograd; Lanczos ends at `TOLERANCE`. Steps of eps^(1/3) alone fail in both seeds.
    """
    for seed in (5, 19):
        torch.manual_seed(seed)
        x, y = torch.randn(3000, 4), torch.randn(3000, 1)
        x, layer = (x, torch.nn.Linear(4, 16)) if first == "linear" else (torch.randint(0, 9, (3000, 4)), Bag(True))
        wide = torch.nn.Linear(16 if first == "linear" else 8, 16)
        model = torch.nn.Sequential(layer, torch.nn.ReLU(), wide, torch.nn.ReLU(), torch.nn.Linear(16, 1))
        found = diagnose(model, F.mse_loss, (x, y), **QUICK | {"batch_size": 3000})
        assert any("central differences" in one for one in found.notes) == (first == "bag")
        layer.once, model, x = False, model.double(), x.double() if first == "linear" else x
        params = list(model.parameters())
        gradient = torch.autograd.grad(F.mse_loss(model(x), y.double()), params, create_graph=True)
        rows = [torch.autograd.grad(one, params, retain_graph=True) for one in torch.cat([g.ravel() for g in gradient])]
        hessian = torch.stack([torch.cat([g.ravel() for g in row]) for row in rows])
        assert abs(found.sharpness.value / float(torch.linalg.eigvalsh(hessian)[-1]) - 1) < TOLERANCE


class Single(torch.nn.Module):
    """x / sqrt(mean x^2) in single precision, whatever that of its input, as norms of language models compute it."""

    def forward(self, x):
        u = x.float()
        return (u * torch.rsqrt(u.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


class Padded(torch.nn.Module):
    """Words, of which word 0 is for padding: its row is a constant, and not zero."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, 6, padding_idx=0)
        with torch.no_grad():
            self.table.weight[0] = torch.randn(6)

    def forward(self, words):
        return self.table(words).flatten(1)


@pytest.mark.parametrize("kind", ["single", "padded", "hidden"])
def test_differences_refuse_wrong_derivatives_alone(kind):
    """Not those of a network that differences cannot measure, along any of ten directions; control: a backward that hides its input."""
    torch.manual_seed(3)
    x, y = torch.randn(512, 6), torch.randn(512, 1)
    if kind == "padded":
        x = torch.randint(0, 9, (512, 5)) * (torch.rand(512, 5) < 0.4)
    inner = {"single": torch.nn.Linear(6, 12), "padded": Padded(), "hidden": Squared(6, 12)}[kind]
    middle = Single() if kind == "single" else torch.nn.Tanh()
    wide = 30 if kind == "padded" else 12
    own = Derivatives(torch.nn.Sequential(inner, middle, torch.nn.Linear(wide, 1)), Objective(F.mse_loss), (x, y))
    double = _doubled(own)
    assert bool(own.note) == (kind == "hidden")
    assert [_agree(double, (x, y), seed) for seed in range(10)] == [kind != "hidden"] * 10


def test_hessians_of_attention_embedding_bags_and_hidden_backwards():
    """Products agree with a dense Hessian by differences of gradients in double precision to 1e-4."""
    torch.manual_seed(0)
    x, y = torch.randn(24, 8).double(), torch.randn(24, 1).double()
    words = torch.randint(0, 6, (24, 3))
    bag = torch.nn.Sequential(torch.nn.EmbeddingBag(6, 3, mode="sum", sparse=True), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    for model, inputs, note in ((Attention(), x, False), (bag, words, True), (Squared(8, 1), x, True)):
        model = model.double()
        found = diagnose(model, F.mse_loss, (inputs, y), **QUICK)
        assert any("central differences" in one for one in found.notes) == note
        params, columns = list(model.parameters()), []
        flat = torch.nn.utils.parameters_to_vector(params).detach()
        for direction in torch.eye(len(flat)).double():
            ends = []
            for step in (1e-5, -1e-5):
                torch.nn.utils.vector_to_parameters(flat + step * direction, params)
                grads = torch.autograd.grad(F.mse_loss(model(inputs), y), params)
                ends.append(torch.cat([g.to_dense().ravel() for g in grads]))
            columns.append((ends[0] - ends[1]) / 2e-5)
        h = torch.stack(columns)
        assert abs(found.sharpness.value / float(torch.linalg.eigvalsh((h + h.T) / 2)[-1]) - 1) < 1e-4


def test_numpy_arrays_streams_and_summed_losses():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 4)), rng.standard_normal((64, 1))
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    from_arrays = diagnose(model, F.mse_loss, (x, y), **QUICK)
    expected = np.linalg.eigvalsh(2 * (own := np.c_[x, np.ones(64)]).T @ own / 64)[-1]
    assert abs(from_arrays.sharpness.value / expected - 1) < 1e-3
    summed = diagnose(model, torch.nn.MSELoss(reduction="sum"), (x, y), **QUICK | {"lr": 1e-4})
    assert abs(summed.sharpness.value / (8 * expected) - 1) < 1e-3
    blocks = ((torch.tensor(x[i : i + 8]).float(), torch.tensor(y[i : i + 8]).float()) for i in range(0, 64, 8))
    streamed = diagnose(model, F.mse_loss, blocks, **QUICK | {"batch_size": None})
    assert streamed.batch_size == 8 and streamed.sharpness.low < streamed.sharpness.high and "stream" in streamed.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": torch.nn.MSELoss(reduction="none")}, "scalar tensor.*reduction"),
        ({"data": (torch.full((64, 4), math.nan), torch.zeros(64, 1))}, "`data` must be finite"),
        ({"data": (torch.zeros(64, 4), torch.full((64, 1), math.inf))}, "`data` must be finite"),
        ({"data": (torch.zeros(64, 3), torch.zeros(64, 1))}, "must take a batch of `data`"),
        ({"loss": lambda out, y: (out.detach() - y).square().mean()}, "depend on the model's parameters"),
        ({"loss": lambda out, y: (out * 0).sqrt().sum()}, "finite derivatives"),
    ],
)
def test_invalid_losses_and_data_are_refused_with_their_cause(change, message):
    settings = {"model": torch.nn.Linear(4, 1), "loss": F.mse_loss, "data": (torch.ones(64, 4), torch.ones(64, 1))} | QUICK
    with pytest.raises(ValueError, match=message):
        diagnose(**settings | change)


@pytest.mark.parametrize("dim", [100, 400])
def test_the_sharpness_is_that_of_all_data_at_every_batch_size(dim):
    """Least squares on 4,000 samples; the Lanczos interval fails with probability 1e-4. Negative control: 512 samples lie outside."""
    torch.manual_seed(0)
    x = torch.randn(4000, dim)
    model = torch.nn.Linear(dim, 1, bias=False)
    top = lambda rows: float(torch.linalg.eigvalsh(2 * rows.double().T @ rows.double() / len(rows))[-1])  # noqa: E731
    values = []
    for size in (8, 32, 128):
        found = diagnose(model, F.mse_loss, (x, x[:, :1]), lr=1e-3, batch_size=size, seeds=0, batches=16).sharpness
        assert found.low * (1 - 1e-5) < top(x) < found.high < 1.01 * top(x) < top(x[:512])
        values.append(found.value)
    assert np.ptp(values) < 1e-4 * values[0]


@pytest.mark.slow
def test_cross_fitted_intervals_have_their_coverage():
    """32 parts of 16 Gaussian samples each, with and without a spike: at 95 % coverage, at least 176 of 200; false-alarm rate 1e-4.

    Negative control: the largest eigenvalue of the whole sample plus or minus an eighth of the interval's width nearly always misses the true
    value without a spike.
    """
    from sdetools.bridge.curvature import cross_fitted

    for spike in (1.0, 4.0):
        spread = torch.ones(20).double()
        spread[0] = math.sqrt(spike)
        hits = naive = 0
        for seed in range(200):
            generator = torch.Generator().manual_seed(seed)
            rows = torch.randn(32, 16, 20, generator=generator, dtype=torch.float64) * spread
            parts = rows.mT @ rows / 16
            found = cross_fitted(
                lambda some, v, parts=parts: parts[list(some)].mean(0) @ v, 32, torch.randn(20, generator=generator).double()
            )
            hits += found.low <= spike <= found.high
            naive += abs(float(torch.linalg.eigvalsh(parts.mean(0))[-1]) - spike) < (found.high - found.low) / 8
        assert hits >= 176
        assert spike > 1 or naive < 20


def test_the_sharpness_in_a_thousand_dimensions():
    """The sharpness of the full loss at batch size 32; the Lanczos interval fails with probability 1e-4."""
    torch.manual_seed(0)
    x = torch.randn(4000, 1000)
    top = lambda rows: float(torch.linalg.eigvalsh((2 / len(rows)) * rows @ rows.T)[-1])  # noqa: E731 - that of X^T X too
    true = float(torch.linalg.eigvalsh(2 * x.T @ x / 4000)[-1])
    found = diagnose(
        torch.nn.Linear(1000, 1, bias=False), F.mse_loss, (x, x[:, :1]), lr=1e-3, batch_size=32, seeds=0, batches=16
    ).sharpness
    assert found.low * (1 - 1e-5) < true < found.high < 1.02 * true < top(x[:512])


def test_the_sharpness_costs_a_small_part_of_a_trial(monkeypatch):
    """Counted in batch gradients, with a product as two and a graph as one: at most a quarter of a trial of 1,600, and not zero."""
    from sdetools.bridge import curvature, diagnosis, hessian_products

    done, spent = [], []
    linear = hessian_products.Derivatives.linear

    def counting_linear(own, batch):
        done.append(1)
        through = linear(own, batch)
        return lambda v: done.append(2) or through(v)

    def counted(*settings):
        before = len(done)
        found = curvature.sharpness(*settings)
        spent.append(sum(done[before:]))
        return found

    monkeypatch.setattr(hessian_products.Derivatives, "linear", counting_linear)
    monkeypatch.setattr(diagnosis, "sharpness", counted)
    x, y = digits(1024)
    for layer in (torch.nn.BatchNorm1d(64), torch.nn.Dropout(0.2)):
        model = torch.nn.Sequential(layer, torch.nn.Linear(64, 10)).double()
        spent.clear()
        found = diagnose(model, F.cross_entropy, (x, y), lr=0.01, batch_size=8, batches=16, seeds=2, trial=True)
        assert len(spent) == 2 and 100 < sum(spent) <= 400
        assert found.sharpness.low < found.sharpness.value < found.sharpness.high
        assert found.cost.sharpness == pytest.approx(sum(spent), rel=0.2)  # the claimed cost is that which was counted


def test_the_sharpness_with_tied_and_frozen_weights_and_logistic_loss_equals_the_dense_one():
    """Against torch's dense Hessian in double precision, to 2e-3, the relative width at which the Lanczos method stops."""
    torch.manual_seed(0)
    x = torch.randn(48, 4).double()

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 4).double())
            self.frozen = torch.nn.Parameter(torch.randn(4).double(), requires_grad=False)

        def forward(self, x):
            return torch.tanh(x @ self.weight + self.frozen) @ self.weight.T

    own = Tied()
    frozen = {"frozen": own.frozen}
    loss = lambda w: F.mse_loss(torch.func.functional_call(own, {"weight": w.reshape(4, 4)} | frozen, x), x)  # noqa: E731
    h = torch.autograd.functional.hessian(loss, own.weight.detach().ravel())
    found = diagnose(own, F.mse_loss, (x, x), **QUICK)
    assert abs(found.sharpness.value / float(torch.linalg.eigvalsh(h)[-1]) - 1) < 2e-3
    assert found.freed == 16 * 8
    y = (x[:, :1] > 0).double()
    model = torch.nn.Linear(4, 1, bias=False).double()
    p = torch.sigmoid(x @ model.weight.detach().T)
    h = x.T @ (p * (1 - p) * x) / 48
    found = diagnose(model, F.binary_cross_entropy_with_logits, (x, y), **QUICK)
    assert abs(found.sharpness.value / float(torch.linalg.eigvalsh(h)[-1]) - 1) < 2e-3


def test_iterable_data_sets_and_dicts():
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    rows = list(zip(x, x[:, :1]))

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(rows)

    model = torch.nn.Linear(4, 1)
    streamed = diagnose(model, F.mse_loss, torch.utils.data.DataLoader(Stream(), batch_size=8), **QUICK | {"batch_size": None})
    assert streamed.batch_size == 8 and "64 samples were read" in streamed.notes[0]
    loss_of = lambda net, batch: F.mse_loss(net(batch["x"]), batch["y"])  # noqa: E731
    from_dicts = diagnose(model, None, {"x": x, "y": x[:, :1]}, loss_of=loss_of, **QUICK)
    from_arrays = diagnose(model, F.mse_loss, (x, x[:, :1]), **QUICK)
    assert from_dicts.to_json() == from_arrays.to_json()


def test_zero_gradients_and_parameters_that_are_not_finite():
    x = torch.ones(64, 4)
    model = torch.nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    stationary = diagnose(model, F.mse_loss, (x, torch.zeros(64, 1)), **QUICK)
    assert any("every gradient is 0" in note for note in stationary.notes) and stationary.advice in ("drop", "unsure")
    with torch.no_grad():
        model.bias.fill_(math.nan)
    with pytest.raises(ValueError, match="finite parameters; got a NaN or an infinity in bias"):
        diagnose(model, F.mse_loss, (x, x[:, :1]), **QUICK)


def test_the_shortfall_of_a_trial_has_its_earlier_name_for_one_release():
    from sdetools.bridge.curvature import Quantity
    from sdetools.bridge.trial import Trial

    trial = Trial(1, 1.0, np.zeros(2), np.zeros(2), Quantity.of(0.25))
    with pytest.warns(DeprecationWarning, match="`lost` is now `shortfall`"):
        assert trial.lost is trial.shortfall
