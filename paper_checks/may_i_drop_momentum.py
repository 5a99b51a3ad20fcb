"""May I drop momentum here? The diagnosis is compared with complete runs that it does not use, and with the memory that it saves."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
from _networks import SETTINGS, STEPS, complete_run, network, test_loss
from _training import seeds, training

import sdetools as st

MISSED, BETTER, UNSURE = 2, 3, 2
"""Largest number of wrong or open answers where the truth is known, least number of right answers above the best constant answer, and
largest number of open answers among all 12.
"""


@st.claim(
    "diagnosis-predicts",
    statement=r"A diagnosis at the start of a run, with trials of 200 steps, predicts whether plain SGD at the learning rate $\eta/(1-\beta)$ "
    r"ends like SGDM. Complete runs are the ground truth. Where their 95 % interval of SGD's shortfall contains the tolerance, no answer is "
    r"right or wrong.",
    source="Lemma 2.4 and Section 5.1",
)
def diagnosis(run):
    """Compare the advice of the diagnosis with complete runs with and without momentum."""
    from torch.nn import functional as F

    from sdetools.bridge.trial import TOLERANCE, progress_shortfall
    from sdetools.recipes.training import Job

    count, first = run.scale(quick=8, standard=8, full=16), seeds(run)  # four seeds decide too few settings
    keys = list(itertools.product(SETTINGS, ("SGDM", "SGD"), range(first, first + count)))
    with training(run, f"{STEPS} steps of {len(SETTINGS)} settings") as trainer:
        runs = trainer.all(
            {
                (own, method, seed): Job(
                    f"{own.network}-b{own.batch}-lr{own.lr:g}-{method.lower()}-seed{seed}",
                    partial(complete_run, own, method, seed),
                    seed,
                )
                for own, method, seed in keys
            }
        )
        rows, truth, answers = [], [], []
        for own in SETTINGS:
            model, train, test = network(own.network)
            found = st.bridge.diagnose(
                model, F.cross_entropy, train, lr=own.lr, momentum=0.9, batch_size=own.batch, seed=run.seed % 2**31
            )
            before = test_loss(model.eval(), test)["test_loss"]
            ends = {
                method: np.array([runs[own, method, first + i].final.get("test_loss") or math.nan for i in range(count)])
                for method in ("SGDM", "SGD")
            }
            shortfall = progress_shortfall(before, ends["SGDM"], ends["SGD"], looks=1)
            truth.append("drop" if shortfall.high < TOLERANCE else "keep" if shortfall.low > TOLERANCE else "unknown")
            answers.append(found.advice)
            rows.append(
                [*own, str(found.step_sharpness), found.prediction, str(found.trial.shortfall), found.advice, str(shortfall)]
            )
    run.table(
        "Advice and complete runs",
        [[*row, true] for row, true in zip(rows, truth)],
        [
            "network",
            "batch",
            "lr",
            "eta lambda_max",
            "prediction",
            "shortfall, trial",
            "advice",
            "shortfall, complete run",
            "true",
        ],
    )
    right = sum(a == t for a, t in zip(answers, truth))
    known = len(truth) - truth.count("unknown")
    best = max(truth.count(word) for word in ("keep", "drop"))
    run.measure("settings in which momentum matters", float(truth.count("keep")), at_least=5)
    run.measure("settings in which it does not", float(truth.count("drop")), at_least=5)
    run.measure("answers missed, where whole runs know", float(known - right), at_most=MISSED)
    run.measure("more right than of the best constant answer", float(right - best), at_least=BETTER)
    run.measure("open answers", float(answers.count("unsure")), at_most=UNSURE)
    with run.control("the best constant answer"):
        run.measure("answers missed, where whole runs know", float(known - best), at_most=MISSED)


@st.claim(
    "diagnosis-is-its-formulas",
    statement=r"The diagnosis' terms of Lemma 2.4, their intervals, the shortfall of a trial and the thresholds of its advice agree with the "
    r"equations, written out for a softmax regression.",
    source="Lemma 2.4",
)
def formulas(run):
    """Compare the terms of the diagnosis with the equations, written out for a softmax regression."""
    import torch
    from scipy.stats import t as student_law

    from sdetools.bridge.curvature import Quantity
    from sdetools.bridge.diagnosis import zone_of
    from sdetools.bridge.lemma_terms import jackknife, lemma_terms
    from sdetools.bridge.trial import Trial, progress_shortfall

    exact = {"tolerance": 1e-10}
    names = "|grad L|^2", "grad L.H grad L", "tr(H Sigma)", "tr(Sigma)"
    rng = np.random.default_rng(7)

    # a softmax regression: g_i = (p - e_y) x_i, H_i = (diag p - p p^T) (x) x_i x_i^T
    n, d, k, size = 30, 4, 3, 7
    x, y, w = rng.standard_normal((n, d)), rng.integers(0, k, n), rng.standard_normal((k, d))
    p = np.exp(x @ w.T)
    p /= p.sum(axis=1, keepdims=True)
    single = np.einsum("ik,id->ikd", p - np.eye(k)[y], x).reshape(n, -1)
    bend = np.einsum("ik,kl->ikl", p, np.eye(k)) - np.einsum("ik,il->ikl", p, p)
    h = np.einsum("ikl,id,ie->kdle", bend, x, x).reshape(k * d, k * d) / n
    g = single.mean(axis=0)
    sigma = (n - size) / ((n - 1) * size) * (single.T @ single / n - np.outer(g, g))
    expected = [g @ g, g @ h @ g, np.trace(h @ sigma), np.trace(sigma)]
    model = torch.nn.Linear(d, k, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(w))
    cross_entropy = torch.nn.functional.cross_entropy
    found = st.bridge.diagnose(model, cross_entropy, (x, y), lr=0.01, batch_size=size, batches=16, seeds=0, exact=True)
    own = found.descent.value, found.curvature.value, found.noise.value, found.variance.value
    for name, value, true in zip(names, own, expected):
        run.measure(f"softmax regression, {name}", value / true, expected=1.0, **exact)
    top = float(np.linalg.eigvalsh(h)[-1])
    run.measure("softmax regression, largest eigenvalue", found.sharpness.value / top, expected=1.0, tolerance=2e-3)
    run.measure("softmax regression, gradient noise scale", found.noise_scale * (g @ g) / (size * np.trace(sigma)), 1.0, **exact)

    # unbiasedness: over all equally likely triples of batches the mean of the estimates is the exact term
    three, h = rng.standard_normal((3, 2)) + 1.0, np.array([[2.0, 0.3], [0.3, 0.5]])
    drawn = []
    for pick in itertools.product(range(3), repeat=3):
        v = three[list(pick)]
        drawn.append(lemma_terms(v @ v.T, v @ h @ v.T, np.array([(v * v).sum(axis=1), (v @ h * v).sum(axis=1)])))
    m, cov = three.mean(axis=0), np.cov(three.T, bias=True)
    for name, value, true in zip(names, np.mean(drawn, axis=0), [m @ m, m @ h @ m, np.trace(h @ cov), np.trace(cov)]):
        run.measure(f"mean over all batches, {name}", value / true, expected=1.0, **exact)
    with run.control("gradients that meet their own noise"):
        run.measure("mean over all batches, |grad L|^2", (three * three).sum(axis=1).mean() / (m @ m), 1.0, **exact)

    # the jackknife, group by group: products with matrices that are only approximately symmetric
    v, u = rng.standard_normal((2, 8, 3)) + 1.0
    alone = rng.standard_normal((2, 8)) ** 2

    def written(groups):
        pairs = [(a, b) for a in groups for b in groups if a != b]
        one, two = (sum(c[a] @ v[b] for a, b in pairs) / len(pairs) for c in (v, u))
        first, second = (sum(row[a] for a in groups) / len(groups) for row in alone)
        return np.array([one, two, second - two, first - one])

    left = np.array([written([b for b in range(8) if b != a]) for a in range(8)])
    half = student_law.ppf(0.975, 7) * np.sqrt(7 / 8 * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    for name, found, value, reach in zip(names, jackknife(v @ v.T, u @ v.T, alone), written(range(8)), half):
        run.measure(f"jackknife, {name}", found.value / value, expected=1.0, **exact)
        run.measure(f"jackknife, lower end of {name}", (value - found.low) / reach, expected=1.0, **exact)
        run.measure(f"jackknife, upper end of {name}", (found.high - value) / reach, expected=1.0, **exact)

    # a trial: from 3 to about 1 with momentum; plain SGD ends 0.2, 0.1, 0.3 and 0 higher
    momentum, lacked = np.array([1.0, 1.2, 0.8, 1.0]), np.array([0.2, 0.1, 0.3, 0.0])
    shortfall = progress_shortfall(3.0, momentum, momentum + lacked)
    scatter = lacked - 0.075 * (3.0 - momentum)
    half = student_law.ppf(1 - 0.025 / 3, 3) * math.sqrt((scatter**2).sum() / 3 / 4) / 2.0
    run.measure("trial, progress lacked", shortfall.value, expected=0.075, **exact)
    run.measure("trial, lower end", shortfall.low, expected=0.075 - half, **exact)
    run.measure("trial, upper end", shortfall.high, expected=0.075 + half, **exact)
    for word, end, counted in (
        ("just below twice the progress", 3.99, 3.99),
        ("just above", 4.01, 4.0),
        ("diverged", math.inf, 4.0),
    ):
        value = progress_shortfall(3.0, np.ones(4), np.array([1.0, 1.0, 1.0, 1.0 + end])).value
        run.measure(f"trial, a run {word}", value, expected=counted / 8, **exact)
    nothing = progress_shortfall(3.0, np.ones(4) * 3.5, np.ones(4))
    run.measure("trial, no progress: open", float(nothing.low == -math.inf and nothing.high == math.inf), expected=1.0, **exact)

    # thresholds of the advice
    cases = [
        (0.05, 0.0, 0.0999, "drop"),
        (0.05, 0.0, 0.1001, "unsure"),
        (0.15, 0.0999, 0.2, "unsure"),
        (0.15, 0.1001, 0.2, "keep"),
    ]
    correct = [Trial(1, 3.0, momentum, momentum, Quantity.of(*ends)).advice == word for *ends, word in cases]
    run.measure("trial, answers beside the tolerance", float(sum(correct)), expected=4.0, **exact)
    cases = [
        (0.9, 0.8, 0.999, "drop"), (0.9, 0.8, 1.001, None), (1.5, 1.001, 1.999, "between"), (1.5, 0.999, 1.9, None),
        (1.9, 1.5, 2.001, None), (2.1, 1.999, 2.2, None), (2.1, 2.001, 2.2, "keep"), (math.inf, math.inf, math.inf, None),
    ]  # fmt: skip
    correct = [zone_of(Quantity.of(*ends)) == word for *ends, word in cases]
    run.measure("predictions beside 1 and 2", float(sum(correct)), expected=8.0, **exact)


@st.claim(
    "momentum-takes-a-copy-of-the-parameters",
    statement=r"Plain SGD has no optimiser state; the state of SGDM has as many bytes as the parameters, in memory and in checkpoints.",
    source="Section 1",
)
def memory(run):
    """Check the bytes of optimiser state in memory and in checkpoints."""
    import torch

    from sdetools.bridge import SGD, SGDM, diagnose
    from sdetools.recipes import checkpoint

    def kept(optimiser, model):
        """Return the bytes of the optimiser's tensors after a step, and those of its checkpoint."""
        torch.nn.functional.mse_loss(model(torch.ones(4, 256)), torch.zeros(4, 256)).backward()
        optimiser.step()
        tensors = [t for state in optimiser.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        size = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
        path = checkpoint.write(folder, run.id, 1, {"optimiser": optimiser.state_dict()})
        return size, path.stat().st_size

    with run.folder() as folder:
        made = lambda: torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(8)))  # noqa: E731
        model = made()
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        plain, ours = (kept(make(model.parameters(), lr=0.01), model) for make in (SGD, partial(SGDM, momentum=0.9)))
        theirs = kept(torch.optim.SGD(model.parameters(), lr=0.01, momentum=1e-9), model)
        data = torch.ones(64, 256), torch.zeros(64, 256)
        freed = diagnose(made(), torch.nn.functional.mse_loss, data, lr=1e-4, batch_size=8, batches=16, seeds=0).freed
    run.measure("plain SGD: bytes kept", float(plain[0]), expected=0.0, tolerance=0.5)
    run.measure("SGDM: bytes kept, beside those of the parameters", ours[0] / size, expected=1.0, tolerance=1e-9)
    run.measure("checkpoints: bytes more with momentum, beside those of the parameters", (ours[1] - plain[1]) / size, 1.0, 0.02)
    run.measure("what the diagnosis says is freed, beside it", freed / size, expected=1.0, tolerance=1e-9)
    with run.control("momentum set to nearly nothing instead of dropped"):
        run.measure("torch.optim.SGD: bytes kept", float(theirs[0]), expected=0.0, tolerance=0.5)
