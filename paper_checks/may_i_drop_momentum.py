"""May I drop momentum here? P(keep) of the diagnosis on networks that it was not fitted to, its formulas, and the memory that dropping saves."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
from _dropping import BATCHES, MOMENTUM, Answers, benchmark, complete_runs, points, problems, recorded

import sdetools as st
from sdetools.estimates import Estimate

LACKED, DEAD = 0.1, 0.05
"""The share of momentum's progress that plain SGD may lack, and the progress below which a setting is not scored."""
LEAST_SKILL = 0.5
"""The Brier skill that the diagnosis has at least: half of the best constant's score."""


def over_networks(p: np.ndarray, lacking: np.ndarray, networks: list[str], seed: int) -> Estimate:
    """Return the Brier skill with the standard error of the benchmark's bootstrap over whole networks, whose number is the estimate's n."""
    scores = benchmark("scores")
    found = scores.resampled(scores.brier, p, lacking, networks, seed)
    return Estimate(scores.skill(scores.brier, p, lacking), float(np.nanstd(found, ddof=1)), len(set(networks)))


def fresh(run) -> Answers:
    """Return the answers of `diagnose` for the twelve networks of `problems`, and what became of their complete runs."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, networks, answers, lacking = [], [], [], []
        seeds, places = run.scale(quick=12, standard=24, full=48), points(run.scale(quick=2, standard=3, full=4))
        for number, (name, own) in enumerate(problems().items()):
            batch, seed = BATCHES[number % len(BATCHES)], run.seed % 2**31 + number
            ask = partial(st.bridge.diagnose, own.network, own.loss, own.data, momentum=MOMENTUM, batch_size=batch, batches=16)
            top = ask(lr=1e-3, seeds=0).sharpness.value
            ends = complete_runs(own, [x0 / top for x0 in places], batch, seeds, seed)
            for x0, (with_momentum, plain) in zip(places, ends):
                found = ask(lr=(1 - MOMENTUM) * x0 / top, seed=seed)
                progress, share = 1 - with_momentum.mean(), math.nan
                if progress > DEAD and math.isfinite(found.keep_probability):
                    share = float(((plain - with_momentum) / progress > LACKED).mean())
                    networks.append(name)
                    answers.append(found.keep_probability)
                    lacking.append(share)
                rows.append([name, batch, x0, found.stage, found.keep_probability, share, progress, found.cost.total])
    finally:
        torch.set_num_threads(threads)
    columns = ["network", "batch", "x0", "stage", "P(keep)", "runs that lack over 0.1", "momentum's progress", "gradients"]
    run.table("P(keep) and complete runs", rows, columns)
    return Answers(np.array(answers), np.array(lacking), networks, float(np.mean([row[-1] for row in rows])))


@st.claim(
    "diagnosis-is-calibrated",
    statement=r"The diagnosis' probability that plain SGD at the learning rate $\eta/(1-\beta)$ lacks more than a tenth of momentum's progress, in "
    r"stages and fitted to other networks, has less than half the Brier score of the best constant probability.",
    source="Lemma 2.4 and Section 5.1",
)
def calibration(run):
    """Compare P(keep) with complete runs with and without momentum on networks that the fit did not use: recorded ones and, beyond quick, fresh ones."""
    cases = {"recorded runs": recorded()} | (
        {"fresh runs": fresh(run)} if run.scale(quick=False, standard=True, full=True) else {}
    )
    for case, (p, lacking, networks, cost) in cases.items():
        skill, sure = over_networks(p, lacking, networks, seed=0), (p <= 0.05) | (p >= 0.95)
        wrong = float(np.abs(p[sure].round() - lacking[sure]).mean()) if sure.any() else 0.0
        run.note(
            f"{case}: Brier skill {skill.value:.2f} over {len(p)} settings of {skill.n} networks; {sure.sum()} answers above 95 %, {100 * wrong:.1f} % of "
            f"whose runs end otherwise; mean cost {100 * cost / 1600:.0f} % of a pair of runs of 800 steps. The interval is Student's, with the standard "
            "error of a bootstrap over networks: it assumes that the networks are a sample, and a skill that is about normal."
        )
        run.measure(f"Brier skill beside the best constant, {case}", skill, at_least=LEAST_SKILL)
        wrong_order = [i for name in dict.fromkeys(networks) for i in np.flatnonzero(np.array(networks) == name)[::-1]]
        with run.control(f"the outcomes of each network in reverse order of its settings, {case}"):
            run.measure(
                f"Brier skill beside the best constant, {case}",
                over_networks(p, lacking[wrong_order], networks, seed=0),
                at_least=LEAST_SKILL,
            )


@st.claim(
    "diagnosis-is-its-formulas",
    statement=r"The diagnosis' terms of Lemma 2.4, their intervals, the gaps of a trial, the interval of their share and all thresholds agree with the "
    r"equations, written out for a softmax regression.",
    source="Lemma 2.4",
)
def formulas(run):
    """Compare the terms of the diagnosis with the equations, written out for a softmax regression."""
    import torch
    from scipy.stats import t as student_law

    from sdetools.bridge.curvature import Quantity
    from sdetools.bridge.keep_probability import capped_gap
    from sdetools.bridge.lemma_terms import jackknife, lemma_terms
    from sdetools.bridge.stages import DiagnosisStage, zone_of
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
    half = student_law.ppf(1 - 0.025, 3) * math.sqrt((scatter**2).sum() / 3 / 4) / 2.0
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

    # the share of pairs that lack more than a tenth: gaps 0.1, 0.1/1.8, 0.3/2.2, 0 and 1 of a diverged run, capped at the initial loss
    trial = Trial(1, 3.0, np.append(momentum, 1.0), np.append(momentum + lacked + 1e-12, math.nan), shortfall)
    expected = [0.1, 0.1 / 1.8, 0.3 / 2.2, 0.0, 1.0]
    run.measure("trial, gaps of the pairs", float(np.abs(trial.gaps - expected).max()), expected=0.0, **exact)
    run.measure("trial, a gap is at least -1", capped_gap(3.0, 2.0, 0.5), expected=-1.0, **exact)
    run.measure("trial, share of pairs", trial.share.value, expected=3 / 5, **exact)
    # Clopper and Pearson: P(at least 3 of 5 at the lower end) = P(at most 3 of 5 at the upper end) = 0.025
    tail = lambda p, counts: sum(math.comb(5, k) * p**k * (1 - p) ** (5 - k) for k in counts)  # noqa: E731
    run.measure("trial, lower end of the share", tail(trial.share.low, (3, 4, 5)), expected=0.025, **exact)
    run.measure("trial, upper end of the share", tail(trial.share.high, (0, 1, 2, 3)), expected=0.025, **exact)

    # the thresholds of the advice, of the theorem on least squares and of the description by it
    cases = [(0.03, 0.01, 0.05, "drop"), (0.03, 0.01, 0.051, "unsure"), (0.97, 0.95, 0.99, "keep"), (0.97, 0.949, 0.99, "unsure")]
    correct = [DiagnosisStage("trial", Quantity.of(*ends), "", 0.0).advice == word for *ends, word in cases]
    run.measure("answers beside 5 % and 95 %", float(sum(correct)), expected=4.0, **exact)
    unstable = lambda x, b: (1 - x) ** 2 + 2 * x * x / b  # noqa: E731 - the mean-square factor of a step on one Gaussian coordinate
    for size in (1, 8, 512):
        run.measure(
            f"factor of a step at the edge, batch {size}", unstable(st.exact.mode_edge(size), size), expected=1.0, **exact
        )
    # heavy ball at its own edge: z^2 - (1 + beta - eta lambda) z + beta has the root -1
    root = 1 + (1 + 0.9 - (1 - 0.9) * st.exact.mode_edge(math.inf, 0.9)) + 0.9
    run.measure("momentum at its own edge", root, expected=0.0, **exact)
    cases = [
        (0.9, 0.8, 0.999, "drop"), (0.9, 0.8, 1.001, None), (1.5, 1.001, 1.999, "between"), (1.5, 0.999, 1.9, None),
        (1.9, 1.5, 2.001, None), (2.1, 1.999, 2.2, None), (2.1, 2.001, 2.2, "keep"), (math.inf, math.inf, math.inf, None),
    ]  # fmt: skip
    correct = [zone_of(Quantity.of(*ends)) == word for *ends, word in cases]
    run.measure("descriptions beside 1 and 2", float(sum(correct)), expected=8.0, **exact)


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
