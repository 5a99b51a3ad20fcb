r"""May I drop momentum here? The diagnosis against whole runs that it does not see, and the memory that the answer frees."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
from _networks import SETTINGS, STEPS, network, test_loss, whole_run
from _training import seeds, training

import sdetools as st

RIGHT, BETTER, UNSURE = 10, 3, 2
"""Of 12: how many answers are right at least, by how many more than the best constant answer, and how many may be open."""


@st.claim(
    "diagnosis-predicts",
    statement=r"A diagnosis at the start of a run, with trials of 200 steps, says whether plain SGD at the rate $\eta/(1-\beta)$ ends like SGDM.",
    source="Lemma 2.4 and Section 5.1",
)
def diagnosis(run):
    from torch.nn import functional as F

    from sdetools.bridge.training import Job
    from sdetools.bridge.trial import TOLERANCE, lost_progress

    count, first = run.scale(quick=4, standard=8, full=16), seeds(run)
    keys = list(itertools.product(SETTINGS, ("SGDM", "SGD"), range(first, first + count)))
    with training(run, f"{STEPS} steps of {len(SETTINGS)} settings") as trainer:
        runs = trainer.all(
            {
                (own, way, seed): Job(
                    f"{own.network}-b{own.batch}-lr{own.lr:g}-{way.lower()}-seed{seed}", partial(whole_run, own, way, seed), seed
                )
                for own, way, seed in keys
            }
        )
        rows, matters, answers = [], [], []
        for own in SETTINGS:
            model, train, test = network(own.network)
            found = st.bridge.diagnose(
                model, F.cross_entropy, train, lr=own.lr, momentum=0.9, batch_size=own.batch, seed=run.seed % 2**31
            )
            before = test_loss(model.eval(), test)["test_loss"]
            ends = {
                way: np.array([runs[own, way, first + i].final.get("test_loss") or math.nan for i in range(count)])
                for way in ("SGDM", "SGD")
            }
            lost = lost_progress(before, ends["SGDM"], ends["SGD"])
            matters.append(None if math.isnan(lost.value) else lost.value > TOLERANCE)
            answers.append(found.advice)
            rows.append([*own, str(found.step_sharpness), found.prediction, str(found.trial.lost), found.advice, str(lost)])
    truth = ["unsure" if m is None else "keep" if m else "drop" for m in matters]
    run.table(
        "Answers beside whole runs",
        [[*row, true] for row, true in zip(rows, truth)],
        ["network", "batch", "lr", "eta lambda_max", "prediction", "SGD lacks, trial", "advice", "SGD lacks, whole run", "true"],
    )
    right = sum(a == t for a, t in zip(answers, truth))
    best = max(truth.count(word) for word in ("keep", "drop"))
    run.measure("settings in which momentum matters", float(truth.count("keep")), at_least=5)
    run.measure("settings in which it does not", float(truth.count("drop")), at_least=5)
    run.measure("right answers, of 12", float(right), at_least=RIGHT)
    run.measure("more than the best constant answer", float(right - best), at_least=BETTER)
    run.measure("open answers", float(answers.count("unsure")), at_most=UNSURE)
    with run.control("the best constant answer"):
        run.measure("right answers, of 12", float(best), at_least=RIGHT)


@st.claim(
    "momentum-takes-a-copy-of-the-parameters",
    statement=r"Plain SGD keeps nothing between steps; SGDM keeps as many bytes as there are in the parameters, in memory and in checkpoints.",
    source="Section 1",
)
def memory(run):
    import torch

    from sdetools.bridge import SGD, SGDM, checkpoint, diagnose

    def kept(optimiser, model):
        """Bytes of the optimiser's tensors after a step, and of a checkpoint of it."""
        torch.nn.functional.mse_loss(model(torch.ones(4, 256)), torch.zeros(4, 256)).backward()
        optimiser.step()
        tensors = [t for state in optimiser.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
        held = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
        path = checkpoint.write(folder, run.id, 1, {"optimiser": optimiser.state_dict()})
        return held, path.stat().st_size

    with run.folder() as folder:
        made = lambda: torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(8)))  # noqa: E731
        model = made()
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        plain, ours = (kept(way(model.parameters(), lr=0.01), model) for way in (SGD, partial(SGDM, momentum=0.9)))
        theirs = kept(torch.optim.SGD(model.parameters(), lr=0.01, momentum=1e-9), model)
        data = torch.ones(64, 256), torch.zeros(64, 256)
        said = diagnose(made(), torch.nn.functional.mse_loss, data, lr=1e-4, batch_size=8, batches=16, seeds=0).freed
    run.measure("plain SGD: bytes kept", float(plain[0]), expected=0.0, tolerance=0.5)
    run.measure("SGDM: bytes kept, beside those of the parameters", ours[0] / size, expected=1.0, tolerance=1e-9)
    run.measure("checkpoints: bytes more with momentum, beside those of the parameters", (ours[1] - plain[1]) / size, 1.0, 0.02)
    run.measure("what the diagnosis says is freed, beside it", said / size, expected=1.0, tolerance=1e-9)
    with run.control("momentum set to nearly nothing instead of dropped"):
        run.measure("torch.optim.SGD: bytes kept", float(theirs[0]), expected=0.0, tolerance=0.5)
