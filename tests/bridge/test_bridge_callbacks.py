"""Callbacks in the loops of transformers and Lightning: SVAG equals its own loop to rounding, and the diagnosis changes no step."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from sdetools.bridge import SGDM, SVAG, HeavyBall, Nesterov
from sdetools.bridge.callbacks import (
    LightningDiagnosis,
    LightningSVAG,
    TransformersDiagnosis,
    TransformersSVAG,
    momentum_of,
)

X = torch.randn(48, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1, keepdim=True).sin()
PAIRS = [(X[at : at + 4], Y[at : at + 4]) for at in range(0, 48, 4)]


def start():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    return net, torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9, weight_decay=0.01)


def loss_of(net, batch):
    return F.mse_loss(net(batch[0]), batch[1])


def exact(l, clip=None):
    """Return the weights after the loop of `SVAG` itself."""
    net, optimiser = start()
    svag = SVAG(optimiser, l)
    for first, second in zip(PAIRS[::2], PAIRS[1::2]):
        optimiser.zero_grad()
        svag.backward(lambda batch: loss_of(net, batch), first, second)
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimiser.step()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def transformers_loop(callbacks, accumulated=2, batches=PAIRS, clip=None):
    """Call the hooks through transformers' own handler, in the order of its `Trainer`."""
    handler_of = pytest.importorskip("transformers.trainer_callback", reason="transformers is not installed")
    net, optimiser = start()
    wrapped = SimpleNamespace(optimizer=optimiser, param_groups=optimiser.param_groups)  # as accelerate wraps it
    handler = handler_of.CallbackHandler([handler_of.DefaultFlowCallback(), *callbacks], net, None, wrapped, None)
    handler.train_dataloader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4)
    args = SimpleNamespace(
        gradient_accumulation_steps=accumulated,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_first_step=False,
    )
    state, control = handler_of.TrainerState(max_steps=10**9), handler_of.TrainerControl()
    handler.on_train_begin(args, state, control)
    for i, batch in enumerate(batches):
        if i % accumulated == 0:
            handler.on_step_begin(args, state, control)
        (loss_of(net, batch) / accumulated).backward()
        if (i + 1) % accumulated and i + 1 < len(batches):
            handler.on_substep_end(args, state, control)
            continue
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        handler.on_pre_optimizer_step(args, state, control)
        optimiser.step()
        handler.on_optimizer_step(args, state, control)
        optimiser.zero_grad()
        state.global_step += 1
        handler.on_step_end(args, state, control)
    handler.on_train_end(args, state, control)
    return net, state


def lightning_loop(callbacks, accumulated=2, batches=PAIRS, clip=None):
    """Call the hooks in the order that Lightning's documentation gives; a step evaluates the closure with the last batch."""
    net, optimiser = start()
    received = []
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4)
    trainer = SimpleNamespace(
        accumulate_grad_batches=accumulated, optimizers=[optimiser], global_step=0, train_dataloader=loader,
        loggers=[SimpleNamespace(log_metrics=lambda numbers, step: received.append((step, numbers)))],
    )  # fmt: skip

    def call(hook, *args):
        for callback in callbacks:
            if hasattr(callback, hook):
                getattr(callback, hook)(trainer, net, *args)

    call("on_train_start")
    for i, batch in enumerate(batches):

        def closure(batch=batch):
            (loss_of(net, batch) / accumulated).backward()
            call("on_after_backward")

        call("on_train_batch_start", batch, i)
        if (i + 1) % accumulated and i + 1 < len(batches):
            closure()
        else:

            def whole(closure=closure):
                closure()
                call("on_before_optimizer_step", optimiser)
                if clip:
                    torch.nn.utils.clip_grad_norm_(net.parameters(), clip)

            optimiser.step(closure=whole)
            optimiser.zero_grad()
            trainer.global_step += 1
        call("on_train_batch_end", None, batch, i)
    call("on_train_end")
    return net, received


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


LOOPS = [(transformers_loop, TransformersSVAG), (lightning_loop, LightningSVAG)]


@pytest.mark.parametrize(("loop", "callback"), LOOPS)
@pytest.mark.parametrize(("l", "clip"), [(1, None), (3, None), (3, 0.05)])
def test_accumulation_of_two_batches_is_svag(loop, callback, l, clip):
    net, _ = loop([callback(l)], clip=clip)
    assert torch.allclose(flat(net), exact(l, clip), rtol=0, atol=1e-13)
    plain, _ = loop([], clip=clip)  # negative control: the loop without the callback
    assert float((flat(plain) - exact(l, clip)).abs().max()) > 1e-4
    net.zero_grad()
    loss_of(net, PAIRS[0]).backward()
    after = net[0].weight.grad
    twin = copy.deepcopy(net)
    twin.zero_grad()
    loss_of(twin, PAIRS[0]).backward()
    assert torch.equal(after, twin[0].weight.grad)  # the hooks are removed at the end


@pytest.mark.parametrize(("loop", "callback"), LOOPS)
def test_svag_refuses_other_accumulation_and_odd_epochs(loop, callback):
    with pytest.raises(ValueError, match="must be 2, because a step of SVAG takes two batches; got 4"):
        loop([callback(2)], accumulated=4)
    with pytest.raises(ValueError, match="must accumulate two batches; got 1.*even number of batches"):
        loop([callback(2)], batches=PAIRS[:5])
    with pytest.raises(ValueError, match="`l` must be at least 1"):
        callback(0)


@pytest.mark.parametrize(
    ("loop", "callback"),
    [
        (transformers_loop, lambda **options: TransformersDiagnosis(4, **options)),
        (lightning_loop, lambda **options: LightningDiagnosis(4, **options)),
    ],
)
def test_the_diagnosis_reports_and_changes_no_step(loop, callback):
    lines, logged = [], []

    class Logger:
        def log(self, step, numbers):
            logged.append((step, numbers))

    one = callback(loss_of=loss_of, tell=lines.append, loggers=[Logger()], batch_size=4)
    net, history = loop([one], accumulated=1)
    plain, _ = loop([], accumulated=1)
    assert torch.equal(flat(net), flat(plain))
    assert [step for step, _ in one.watch.diagnoses] == [4, 8, 12] == [step for step, _ in logged]
    found = one.watch.diagnoses[0][1]
    assert (found.lr, found.momentum, found.batch_size) == (0.2, 0.9, 4) and found.plain_lr == pytest.approx(2.0)
    assert logged[0][1]["diagnosis/eta_lambda_max"] == pytest.approx(2.0 * found.sharpness.value)
    assert lines[0].startswith("step 4: ")
    rows = history.log_history if loop is transformers_loop else [numbers | {"step": step} for step, numbers in history]
    assert rows[0] == logged[0][1] | {"step": 4} and len(rows) == 3


def test_optimisers_state_their_momentum_or_are_refused():
    p = [torch.nn.Parameter(torch.ones(1))]
    for optimiser, form in (
        (torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "nesterov"), (torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.9), "sgdm"),
        (SGDM(p, lr=0.1, momentum=0.9), "sgdm"), (HeavyBall(p, lr=0.1, momentum=0.9), "heavy-ball"), (Nesterov(p, lr=0.1, momentum=0.9), "nesterov"),
    ):  # fmt: skip
        assert momentum_of(optimiser) == (0.1, 0.9, form)
        assert momentum_of(SimpleNamespace(optimizer=optimiser)) == (0.1, 0.9, form)
    groups = [{"params": p}, {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.2}]
    for refused in (
        torch.optim.AdamW(p, lr=0.1), torch.optim.SGD(p, lr=0.1), torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="`optimizer` must be SGD with momentum.*got (AdamW|SGD) with lr=0.1"):
            momentum_of(refused)


@pytest.mark.filterwarnings("default")  # other packages' own warnings
def test_the_callbacks_run_in_lightning_itself(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.own = start()

        def training_step(self, batch, number):
            return loss_of(self.net, batch)

        def configure_optimizers(self):
            return self.own

    def trained(*callbacks, accumulated=2):
        module = Module()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4, num_workers=0)
        trainer = lightning.Trainer(
            max_epochs=1, accumulate_grad_batches=accumulated, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, loader)
        return flat(module.net)

    assert torch.allclose(trained(LightningSVAG(3)), exact(3), rtol=0, atol=1e-13)
    watch = LightningDiagnosis(2, loss_of, network=lambda module: module.net, tell=None)
    assert torch.equal(trained(watch), trained()) and [step for step, _ in watch.watch.diagnoses] == [2, 4, 6]


@pytest.mark.filterwarnings("default")  # other packages' own warnings
def test_the_callbacks_run_in_the_trainer_of_transformers_itself(tmp_path):
    pytest.importorskip("accelerate", reason="accelerate, which transformers' Trainer needs, is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.own = start()

        def forward(self, x, y):
            return {"loss": loss_of(self.net, (x, y))}

    def trained(*callbacks, accumulated=2):
        model = Net()
        args = transformers.TrainingArguments(
            str(tmp_path), max_steps=len(PAIRS) // accumulated, per_device_train_batch_size=4, gradient_accumulation_steps=accumulated,
            report_to="none", use_cpu=True, save_strategy="no", max_grad_norm=0.0, disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        rows = [{"x": x, "y": y} for x, y in zip(X, Y)]
        schedule = torch.optim.lr_scheduler.ConstantLR(model.own, factor=1.0)
        trainer = transformers.Trainer(
            model, args, train_dataset=rows, callbacks=list(callbacks), optimizers=(model.own, schedule)
        )
        trainer._get_train_sampler = lambda *given: torch.utils.data.SequentialSampler(rows)
        trainer.train()
        return flat(model.net)

    assert torch.allclose(trained(TransformersSVAG(3)), exact(3), rtol=0, atol=1e-13)
    watch = TransformersDiagnosis(2, loss_of=lambda model, batch: model(**batch)["loss"], tell=None)
    assert torch.equal(trained(watch), trained()) and [step for step, _ in watch.watch.diagnoses] == [2, 4, 6]
