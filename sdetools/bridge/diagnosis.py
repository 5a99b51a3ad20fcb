r"""Diagnosis of momentum on a real network: can plain SGD replace it? P(keep), the probability that it cannot, in stages.

"Cannot" means that plain SGD at the effective learning rate lacks more than a tenth of momentum's progress, the decrease of the loss, at the end of the
run.

One step of plain SGD changes the expected loss by - eta |grad L|^2 + eta^2/2 (grad L^T H grad L + tr(H Sigma)) (Lemma 2.4, with the Hessian
H and the covariance Sigma of a batch gradient). SGDM acts like SGD at the effective learning rate eta = lr / (1 - momentum) (torch's `lr`) as
long as eta lambda_max is small. In the large step-size regime, eta lambda_max near 2 and above, plain SGD exceeds the stability limit of a quadratic
loss along the top eigenvector, where SGDM is still stable. On networks it either flattens the loss there or is stuck. So the answer comes in stages
(`stages`): x0 = eta lambda_max at the start, plain SGD's own first hundred steps, a paired trial. It stops as soon as P(keep) is clear, at most 0.05 or
at least 0.95.

The terms are estimated from gradients g_i of independent batches and Hessian products H g_i on further independent batches. For i != j,
g_i.g_j and g_j.H g_i are unbiased for |grad L|^2 and grad L^T H grad L. The means of g_i.g_i and g_i.H g_i exceed them by tr(Sigma) and
tr(H Sigma). Intervals come from a jackknife over groups of batches. The sharpness lambda_max is the largest Hessian eigenvalue of the loss
over all data, with its own interval (`curvature`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from sdetools import _check
from sdetools.bridge.batches import Batches, is_stream, read_stream
from sdetools.bridge.curvature import PARTS, Quantity, sharpness
from sdetools.bridge.diagnosis_result import Diagnosis
from sdetools.bridge.hessian_products import Derivatives
from sdetools.bridge.keep_probability import FIRST_STEPS, STAGES, TRIAL_STEPS, Evidence
from sdetools.bridge.lemma_terms import GROUPS, exact_terms, sampled_terms
from sdetools.bridge.modules import Objective, checked_copy, checked_module
from sdetools.bridge.population import Population
from sdetools.bridge.stages import PLANNED_STEPS, Cost, DiagnosisStage, decided, first_stage, further_stages
from sdetools.bridge.torch_optimisers import convert
from sdetools.bridge.trial import TrainingRuns, WorkProgress, sgd_methods
from sdetools.results.protocol import Origin, call_text


def diagnose(
    model: torch.nn.Module,
    loss: Callable[..., torch.Tensor] | None,
    data: Any,
    lr: float,
    momentum: float = 0.9,
    batch_size: int | None = None,
    *,
    form: str = "heavy-ball",
    loss_of: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
    batches: int = 64,
    seeds: int = 2,
    steps: int = 200,
    trial: bool | None = None,
    planned_steps: int | None = None,
    pieces: int = 1,
    exact: bool = False,
    hessian_samples: int | None = None,
    device: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    r"""Measure Lemma 2.4's terms and the sharpness at a checkpoint, and answer whether plain SGD can replace momentum, with P(keep) and its reasons.

    P(keep) is the probability that plain SGD at the effective learning rate would lack more than a tenth of momentum's progress at the end of the run.
    Where the sharpness, the largest Hessian eigenvalue of the loss, leaves doubt, copies of the model train by plain SGD for a hundred steps; where that
    leaves doubt, copies train with momentum and without on the same batches (the trial). The model and torch's generator are not changed. A network wrapped
    by `torch.compile` or for several devices is measured without its wrapper, and `loss_of` receives it so.

    Args:
        model: The network at the checkpoint, in training or evaluation mode.
        loss: The loss of (model(input), target) for batches (input, target); None with `loss_of`.
        data: A tuple of arrays (inputs, targets) with a row per sample, a dict of arrays, a data set with a length, a list of samples, or a loader, whose
            order is ignored; see `Batches`. Of a stream (a loader over an `IterableDataset`, a generator of batches), as many batches are read as one pass
            of the measurement needs, and reused.
        lr: The learning rate > 0 of the run with momentum, in the parametrisation `form`.
        momentum: Its momentum, in [0, 1); at 0 nothing is trained, and the answer is "drop".
        batch_size: Its batch size; None for that of the loader.
        form: How `lr` is to be read: "heavy-ball" (torch's form) and "nesterov" have the effective learning rate lr / (1 - momentum), "sgdm" (Def. 2.3) has
            lr.
        loss_of: The loss of (model, batch), for batches of another form.
        batches: The number of batches that the terms are estimated from, at least 16.
        seeds: The number of runs of each method. P(keep) was fitted to two; from six on, `Trial.advice` can decide too. 0 omits all training; 1 is refused.
        steps: The number of steps of the trial, at least 200, to which P(keep) was fitted. A longer one is looked at after 200 too, and stops there if P is clear.
        trial: True for the trial in any case, False for none, None where the stages before it leave doubt.
        planned_steps: The length of the run in question, to compare the cost with; None for 800, the length of the runs to which P(keep) was fitted.
        pieces: The number of pieces in which a batch passes through the network, one after the other, where it does not fit into memory at once. The
            loss is that of the batch; only batch normalisation normalises each piece alone, as gradient accumulation does.
        exact: Compute the terms from every sample's gradient, for small data and losses that are means or sums over samples.
        hessian_samples: A fixed sample size for the sharpness, at least 32. None uses all data where that takes a small part of the trial's work,
            else samples of growing size.
        device: The device; None for that of the model.
        seed: The seed of shuffles, samples and dropout.
        progress: Called as `progress(done, total)` with the units of work done and in total; the total may grow.

    Returns:
        The diagnosis; print it, or read `.advice`, "drop", "keep" or "unsure", `.keep_probability` and `.reasons`.

    Raises:
        ValueError: If a setting is out of range, the model has no trainable parameters, model and loss reject the batches, the loss is not a scalar,
            or data, parameters, loss or gradient are not finite.

    Example:
        >>> import torch
        >>> from sdetools.bridge import diagnose
        >>> torch.manual_seed(0).initial_seed()
        0
        >>> x = torch.randn(256, 4); y = x.sum(1, keepdim=True) + torch.randn(256, 1)
        >>> found = diagnose(torch.nn.Linear(4, 1), torch.nn.functional.mse_loss, (x, y), lr=1e-3, batch_size=8)
        >>> found.advice, found.stage, found.trial
        ('drop', 'sharpness', None)
    """
    call = call_text(diagnose, locals())
    checked_module(model)
    if not _check.number("lr", lr) > 0:
        raise ValueError(f"`lr` must be positive; got lr={lr!r}.")
    _check.choice("form", form, ["heavy-ball", "sgdm", "nesterov"])
    _check.flag("exact", exact)
    plain_lr = convert(lr, momentum, source=form, target="sgd")["lr"]
    seed = _check.count("seed", seed, least=0)
    batches = _check.count("batches", batches, least=2 * GROUPS)
    seeds = _check.count("seeds", seeds, least=0)
    if seeds == 1:
        raise ValueError("`seeds` must be 0, or at least 2 for an interval; got 1.")
    steps = _check.count("steps", steps, TRIAL_STEPS[0], "P(keep) was fitted to trials of at least as many steps.")
    planned_steps = None if planned_steps is None else _check.count("planned_steps", planned_steps)
    pieces = _check.count("pieces", pieces)
    if trial not in (None, True, False) or (trial and not seeds):
        raise ValueError(
            f"`trial` must be True, False or None, and not True without seeds; got trial={trial!r}, seeds={seeds}. Leave both out."
        )
    if hessian_samples is not None:
        hessian_samples = _check.count("hessian_samples", hessian_samples, least=PARTS)
    net = checked_copy(model, device)
    own = [p for p in net.parameters() if p.requires_grad]
    freed = sum(p.numel() * p.element_size() for p in own) if momentum else 0
    dtype = own[0].dtype  # `Derivatives` converts half precision
    notes = []
    if stream := is_stream(data):
        needed = max(steps, FIRST_STEPS) if seeds else 0
        data, batch_size = read_stream(data, max(batches, needed), batch_size)
    source = Batches(data, batch_size, device, dtype)
    if stream:
        source.partial = True
        notes.append(f"{source.samples} samples were read from the stream and used throughout")
    if pieces > source.size:
        raise ValueError(f"`pieces` must be at most the batch size, {source.size}; got {pieces}.")
    objective = Objective(loss, loss_of, -(-source.size // pieces) if pieces > 1 else None)
    evidence = Evidence(momentum, source.size, planned_steps, 0.0) if momentum else None

    planned = 2 * (source.samples if exact else batches)
    tick = WorkProgress(progress, planned + 8 * PARTS + seeds * 2 * steps * (trial is not False))
    stream_of = lambda which: 1_000 * (seed + 1) + which  # noqa: E731
    with torch.random.fork_rng(devices=[] if device is None or torch.device(device).type == "cpu" else None):
        torch.manual_seed(seed)  # dropout is reproducible, and `fork_rng` restores the caller's generator
        derivatives = Derivatives(net, objective, source.fresh(stream_of(0), 0))
        torch.manual_seed(seed)
        population = Population(derivatives, source, stream_of(2), tick, 2 * seeds * steps)
        if exact:
            terms = exact_terms(population)
            spent = population.gradients
        else:
            terms = sampled_terms(derivatives, source, batches, stream_of, tick)
            spent = 2.0 * batches
        before = population.gradients
        initial = sharpness(population, hessian_samples, decided(evidence, plain_lr))
        if not all(math.isfinite(one.value) for one in (*terms, initial)):
            raise ValueError(
                "the loss must have finite derivatives at the model's present parameters; got a NaN or an infinity on finite data. "
                "Check for logarithms and roots of 0 and for overflow."
            )
        measuring = population.gradients - before
        if evidence is None:
            text = "momentum is 0, so that both methods are the same"
            stages, found = [DiagnosisStage(STAGES[0], Quantity.of(0.0), text, measuring)], None
        else:
            x0, found = initial * plain_lr, None
            evidence = replace(evidence, x0=x0.value)
            stages = [first_stage(x0, evidence, measuring)]
        later, training = None, 0.0
        if evidence is not None and seeds:
            make = sgd_methods(plain_lr, form, lr, momentum)
            runs = TrainingRuns(model, objective, population, make, device, stream_of, tick)
            stages, evidence, found = further_stages(stages[0], x0, evidence, runs, seeds, steps, trial)
            training = runs.gradients
            if found is not None:
                later = Quantity.of(math.inf, math.inf, math.inf)
                if (trained := runs.last_with_momentum(seeds)) is not None:
                    after = Derivatives(trained, objective, source.fresh(stream_of(0), 0))
                    last = Population(after, source, stream_of(2), tick, 2 * seeds * steps)
                    later = sharpness(last, hessian_samples, lambda measured: True)
                    measuring += last.gradients
    tick.end()
    if derivatives.note:
        notes.append(derivatives.note)
    if terms[0].value == terms[3].value == 0:
        notes.append("every gradient is 0: neither method moves")
    return Diagnosis(
        float(lr),
        float(momentum),
        source.size,
        plain_lr,
        *(terms[0], terms[1], terms[2], terms[3]),
        initial,
        later,
        freed,
        found,
        tuple(notes),
        Origin(call, seed, 0, "torch", str(dtype)[6:]),
        tuple(stages),
        evidence,
        Cost(spent, measuring, training, 2.0 * (planned_steps or PLANNED_STEPS)),
    )
