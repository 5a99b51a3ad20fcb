"""Networks in the weak-gap machinery: an `nn.Module` with its loss function and data as a loss of sdetools."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sdetools._identity import function_identity
from sdetools.bridge.batches import map_tensors
from sdetools.losses.torch_function import TorchSamples


class ModuleLoss(TorchSamples):
    """L(x) = mean over the data of criterion(module(input), target), x all trainable parameters in their order; see `loss_of_module`.

    `start`: the parameters that the module came with, `(dim,)`; `load(x)` puts a point back into a copy of the module.
    """

    def __init__(self, module: torch.nn.Module, criterion: Callable[..., Any], inputs: Any, targets: Any) -> None:
        self.module = copy.deepcopy(module).cpu().double()
        self.criterion = criterion
        check_module(self.module)
        own = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        if not own:
            raise ValueError("`module` must have parameters that require a gradient; got none.")
        self.shapes = {name: p.shape for name, p in own.items()}
        self.start = np.concatenate([p.detach().numpy().ravel() for p in own.values()])

        def sample(x: torch.Tensor, a: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            answer = torch.func.functional_call(self.module, self.parts(x), (a[None],))
            return criterion(answer, y[None])

        super().__init__(sample, (inputs, targets), len(self.start), at=self.start)
        self.label = f"{type(module).__name__} with {len(self.start)} parameters on {self.samples} samples"

    @property
    def identity(self) -> str:
        digest = hashlib.sha256(f"{self.module!r}{_told(self.criterion)}".encode())
        for part in self.module.modules():
            if not type(part).__module__.startswith("torch."):
                digest.update(function_identity(type(part).forward).encode())
        fixed = {**dict(self.module.named_buffers()), **{n: p for n, p in self.module.named_parameters() if not p.requires_grad}}
        for name, tensor in (*fixed.items(), *enumerate(self.data)):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().numpy().tobytes())
        return f"module({self.dim}; {digest.hexdigest()[:24]})"

    def parts(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """x, cut into the module's parameters."""
        cut = torch.split(x, [shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for part, (name, shape) in zip(cut, self.shapes.items())}

    def load(self, x: Any) -> torch.nn.Module:
        """A copy of the module with the parameters x `(dim,)`."""
        out = copy.deepcopy(self.module)
        out.load_state_dict(self.parts(torch.as_tensor(np.array(x, dtype=float))), strict=False)
        return out


def _told(criterion: Callable[..., Any]) -> str:
    """What a criterion is, the same in every process."""
    if isinstance(criterion, torch.nn.Module):
        return f"{criterion!r}{ {name: value.tolist() for name, value in criterion.state_dict().items()} }"
    return function_identity(criterion)


def loss_of_module(module: torch.nn.Module, criterion: Callable[..., Any], inputs: Any, targets: Any) -> ModuleLoss:
    """A network as a loss L(x) = mean criterion(module(input), target), x all its trainable parameters, in double precision.

    `st.noise.minibatch(loss, size)` is the noise of its training, and gaps between optimisers start at `x0=loss.start`. `criterion` is
    called with a batch of one. ValueError where one sample's loss depends on the others' (batch normalisation in training mode)
    or on chance (dropout in training mode): call `module.eval()`, or take group normalisation.

    >>> loss = loss_of_module(torch.nn.Linear(2, 3), torch.nn.functional.cross_entropy, torch.randn(8, 2), torch.arange(8) % 3)
    >>> loss.dim, loss.samples, loss.gradient(loss.start).shape
    (9, 8, (9,))
    """
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"`module` must be a torch.nn.Module; got {module!r}.")
    return ModuleLoss(module, criterion, inputs, targets)


def check_module(module: torch.nn.Module) -> None:
    """Refuse a network whose loss is no mean over samples."""
    for name, part in module.named_modules():
        batch = isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and (part.training or not part.track_running_stats)
        chance = isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.training and part.p > 0
        if batch or chance:
            what = "mixes the samples of a batch" if batch else "draws at random"
            raise ValueError(
                f"`module` must have a loss that is a mean over samples; its part {name or type(part).__name__} ({type(part).__name__}) {what}. "
                "Call module.eval() first, or take group normalisation."
            )


class Objective:
    """The loss of a batch as one number, `objective(network, batch)`: that of the run, with the cause named where there is none.

    `loss(model(input), target)` on batches (input, target), or `loss_of(model, batch)`. ValueError for a loss that is no function, for a
    batch that model and loss do not take, a loss that is not one number (`reduction="none"`) or does not depend on the parameters, and for a
    loss that is no number because the batch holds NaN or infinities. A loss that is no number on finite data is returned: the run diverges.

    >>> objective = Objective(torch.nn.functional.mse_loss)
    >>> float(objective(torch.nn.Linear(2, 1), (torch.zeros(4, 2), torch.zeros(4, 1))).detach()) >= 0
    True
    """

    def __init__(self, loss: Callable[..., Any] | None, loss_of: Callable[[torch.nn.Module, Any], Any] | None = None) -> None:
        if loss_of is None and not callable(loss):
            raise ValueError(f"`loss` must be a function of (output, target), or None beside `loss_of`; got {loss!r}.")
        self.loss: Any = loss if loss_of is None else None
        self.loss_of = loss_of

    def __call__(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if self.loss_of is None and not pair:
            raise ValueError(
                "`data` must give batches (input, target) to `loss`; got others. Give loss_of(model, batch) instead."
            )
        try:
            value = self.loss_of(model, batch) if self.loss_of is not None else self.loss(model(batch[0]), batch[1])
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            first = (str(error).strip() or "no message").splitlines()[0]
            raise ValueError(
                f"`model` and the loss must take a batch of `data`, {described(batch)}; they raised {type(error).__name__}: {first}"
            ) from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(
                f'the loss must be one number a batch, a tensor; got {got}. Take reduction="mean", or the mean of what it returns.'
            )
        if torch.is_grad_enabled() and not value.requires_grad:
            raise ValueError(
                "the loss must depend on the model's parameters by torch functions; got a number without a gradient."
            )
        if not bool(torch.isfinite(value)) and (bad := _not_finite(batch)):
            raise ValueError(
                f"`data` must hold finite numbers; got {bad}, where the loss is {value.item()}. Leave such samples out, or fill them."
            )
        return value.reshape(())


def described(batch: Any) -> str:
    """The types and shapes of a batch's tensors."""
    parts: list[str] = []
    map_tensors(lambda part: parts.append(f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}"), batch)
    return f"{type(batch).__name__} of {', '.join(parts)}" if parts else f"a {type(batch).__name__} without tensors"


def _not_finite(batch: Any) -> str:
    """Which of a batch's tensors hold NaN or infinities, in words."""
    parts: list[tuple[int, int]] = []
    map_tensors(lambda part: parts.append((int((~torch.isfinite(part)).sum()), part.numel())), batch)
    return ", ".join(
        f"{bad} of {size} numbers NaN or infinite in tensor {i} of a batch" for i, (bad, size) in enumerate(parts) if bad
    )
