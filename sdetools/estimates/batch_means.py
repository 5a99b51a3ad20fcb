r"""Stationary averages from long paths: replicated batch means, effective sample size, integrated autocorrelation time, split R-hat.

A path is one simulated trajectory after its initial phase. It is divided into batches of m consecutive steps, and Y_pb is the average of h over
batch b of path p. With P paths of B batches each, the estimate of the stationary mean is the average of all Y_pb, and

    s^2 = sum_pb (Y_pb - Y)^2 / (P B - 1),        Y -+ t_{P B - 1} s / sqrt(P B).

Deviations are those from the average over all paths, not over the own path: paths that disagree make the interval wide. If batches are long
compared with the memory of the process, they are independent and normal, so that Student's quantile gives the level with few batches too. For
B = 1 these are independent replications. Where the split R-hat shows that paths disagree, the batches of a path are not independent, and B = 1.

- The integrated autocorrelation time in steps, 1 + 2 sum_k corr(h(x_0), h(x_k)), is m s^2 / Var h; the variance of h is taken over all steps.
- The effective sample size is the number of independent draws with the same standard error, P B Var h / s^2.
- The batch variance lacks a share of about tau / (2 m) for an exponential memory with integrated autocorrelation time tau: at m = 10 tau an
  interval of level 95 % covers 94.4 %.

Sources: N. T. Argon, S. Andradottir, Naval Research Logistics 53 (2006) 508-524; J. M. Flegal, G. L. Jones, Annals of Statistics 38 (2010)
1034-1070; P. W. Glynn, D. L. Iglehart, Mathematics of Operations Research 15 (1990) 1-16; A. Vehtari et al., Bayesian Analysis 16 (2021) 667-718.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sdetools.estimates.estimate import Estimate

SHORTEST = 10.0
"""The least length of a batch in integrated autocorrelation times, for which the interval has nearly its level."""
MIXED = 1.01
"""The largest split R-hat of paths that agree (Vehtari et al. 2021)."""


@dataclass(frozen=True, eq=False, repr=False)
class StationaryEstimate(Estimate):
    """The mean of an observable h in the stationary state, from few long paths, with its interval from replicated batch means.

    A batch is a range of consecutive steps of a path, and a batch mean the average of h over it.

    Attributes:
        n: The number of batch means from which the standard error is computed, paths times batches of a path.
        steps: The number of steps over which the value is an average, all paths together.
        autocorrelation_time: The integrated autocorrelation time, 1 + 2 sum_k corr(h(x_0), h(x_k)), in steps; NaN if it is unknown.
        ess: The effective sample size: the number of independent draws of h with the same standard error; NaN if it is unknown.
        r_hat: The split R-hat, which compares the halves of all paths: near 1 if they agree, above 1.01 if not; NaN if it is unknown.
        concerns: Reasons to doubt the interval, as texts with a remedy; empty if there are none.

    The other attributes are those of `Estimate`.
    """

    steps: int = field(default=0, kw_only=True)
    autocorrelation_time: float = field(default=math.nan, kw_only=True)
    ess: float = field(default=math.nan, kw_only=True)
    r_hat: float = field(default=math.nan, kw_only=True)
    concerns: tuple[str, ...] = field(default=(), kw_only=True)

    def __repr__(self) -> str:
        text = super().__repr__()
        if not math.isfinite(self.half_width):
            return text.replace(f"({self.n} paths", f"({self.n} batch means")
        name = f"{self.name} = " if self.name else ""
        digits = max(0, 1 - math.floor(math.log10(self.half_width))) if self.half_width > 0 else 6
        value = (
            f"{self.value:.{digits}f} +- {self.half_width:.{digits}f}"
            if digits < 7
            else f"{self.value:.4g} +- {self.half_width:.2g}"
        )
        return (
            f"{name}{value} ({100 * self.confidence:g} %; effective sample size {self.ess:,.0f} of {self.steps:,} steps, "
            f"autocorrelation time {self.autocorrelation_time:.3g} steps)"
        )


@dataclass(frozen=True)
class BatchMeans:
    """Averages of an observable h over consecutive blocks of long paths, from which all statistics of its stationary mean are computed.

    A block is a number of consecutive steps. Blocks are joined to longer batches, whose averages count as independent. If a value is not finite, the
    statistics are not finite either.

    Attributes:
        means: The average of h over each block, `(paths, blocks)`; an even number of blocks of equal length.
        squares: The average of h^2 over each block, `(paths, blocks)`.
        length: The number of steps of a block.
        batches: The wanted number of batches of a path for the standard error, a divisor of the number of blocks.

    Example:
        >>> import numpy as np
        >>> from sdetools.estimates.batch_means import BatchMeans
        >>> rng = np.random.default_rng(0)
        >>> h = rng.normal(size=(4, 16, 100))
        >>> found = BatchMeans(h.mean(axis=2), (h**2).mean(axis=2), length=100, batches=16).estimate()
        >>> abs(found.value) < 4 * found.stderr, 0.5 < found.autocorrelation_time < 1.7
        (True, True)
    """

    means: np.ndarray
    squares: np.ndarray
    length: int
    batches: int

    @property
    def paths(self) -> int:
        """The number of paths."""
        return len(self.means)

    @property
    def steps(self) -> int:
        """The number of steps of all paths together."""
        return self.means.size * self.length

    @cached_property
    def used(self) -> int:
        """The number of batches of a path for the standard error: `batches`, but 1 if there are several paths and their split R-hat exceeds 1.01."""
        return 1 if self.paths > 1 and self.r_hat > MIXED else self.batches

    def merged(self, batches: int) -> np.ndarray:
        """Return the averages of h over `batches` batches of each path, of equal length, `(paths, batches)`; `batches` divides the number of blocks."""
        return self.means.reshape(self.paths, batches, -1).mean(axis=2)

    @cached_property
    def mean(self) -> float:
        """The average of h over all steps of all paths."""
        return float(self.means.mean())

    @cached_property
    def variance(self) -> float:
        """The variance of h over all steps of all paths; NaN if it is below 1e-9 of the mean of h^2, where rounding errors prevail."""
        with np.errstate(all="ignore"):  # moments of diverged paths are not finite
            second = float(self.squares.mean())
            variance = second - self.mean**2
        return variance if variance > 1e-9 * second or second == 0 else math.nan

    def stderr(self, batches: int | None = None) -> float:
        """Return the standard error of the mean from `batches` batches of each path, by default `used`; NaN for one batch in all."""
        y = self.merged(self.used if batches is None else batches)
        return math.sqrt(float(((y - self.mean) ** 2).sum()) / (y.size - 1) / y.size) if y.size > 1 else math.nan

    def autocorrelation_time(self, batches: int | None = None) -> float:
        """Return the integrated autocorrelation time 1 + 2 sum_k corr(h(x_0), h(x_k)) in steps, from `batches` batches of each path, by default `used`.

        It is steps stderr^2 / variance; NaN if the variance is not positive.
        """
        return self.steps * self.stderr(batches) ** 2 / self.variance if self.variance > 0 else math.nan

    @cached_property
    def blocking(self) -> tuple[np.ndarray, np.ndarray]:
        """The integrated autocorrelation time against the length of batches; if batches are long enough, it has reached a plateau.

        Two arrays `(lengths,)`: lengths in steps, ascending, of batches with 1, 2, 4, ... blocks, and autocorrelation times in steps. Source:
        H. Flyvbjerg, H. G. Petersen, Journal of Chemical Physics 91 (1989) 461-466.
        """
        counts = [b for b in (self.means.shape[1] >> j for j in range(self.means.shape[1].bit_length())) if b * self.paths > 1]
        lengths = np.array([self.means.shape[1] // b * self.length for b in counts])
        return lengths, np.array([self.autocorrelation_time(b) for b in counts])

    @cached_property
    def r_hat(self) -> float:
        """The split R-hat: every path is divided into halves, and their variance is compared with that within them.

        It is sqrt(((n - 1)/n W + V) / W), with n steps of a half, V the variance of the means of the halves, and W the mean variance within them.
        """
        halves, second = self.merged(2), self.squares.reshape(self.paths, 2, -1).mean(axis=2)
        n = self.length * (self.means.shape[1] // 2)
        within = float((second - halves**2).mean()) * n / max(1, n - 1)
        between = float(halves.var(ddof=1))
        return math.sqrt((n - 1) / n + between / within) if within > 0 and math.isfinite(self.variance) else math.nan

    @cached_property
    def concerns(self) -> tuple[str, ...]:
        """Reasons to doubt the interval, as texts with a remedy; empty if there are none."""
        out, tau, length = [], self.autocorrelation_time(), self.steps // (self.paths * self.used)
        if self.r_hat > MIXED:
            out.append(
                f"split R-hat {self.r_hat:.3f} > {MIXED}: the halves of paths disagree, or are shorter than some 50 autocorrelation times; take "
                "a later horizon and a longer burn_in"
            )
        if self.used > 1 and length < SHORTEST * tau:
            out.append(
                f"batches of {length:,} steps are shorter than {SHORTEST:g} autocorrelation times ({tau:,.3g} steps): the interval may be too "
                "narrow; take a later horizon, or more paths with fewer batches"
            )
        return tuple(out)

    def estimate(self, confidence: float = 0.95, name: str = "", diverged: int = 0, first: int = -1) -> StationaryEstimate:
        """Return the stationary mean of h with its interval.

        Args:
            confidence: The confidence level, strictly between 0 and 1.
            name: What is estimated, for printing.
            diverged: The number of paths that left the finite range; if there are any, the value is NaN.
            first: The first step at which a path did; -1 for none.
        """
        n = self.paths * self.used
        if diverged:
            return StationaryEstimate(math.nan, math.nan, n, confidence, name, diverged, first, steps=self.steps)
        stderr, tau = self.stderr(), self.autocorrelation_time()
        return StationaryEstimate(
            self.mean, stderr, n, confidence, name, steps=self.steps, autocorrelation_time=tau, r_hat=self.r_hat, concerns=self.concerns,
            ess=self.steps / tau if tau > 0 else math.nan,
        )  # fmt: skip


def default_batches(paths: int, blocks: int, least: int = 64) -> int:
    """Return the number of batches of each path: the smallest power of two with at least `least` batches of all paths, at most `blocks`.

    A batch consists of whole blocks, a block of a fixed number of steps. Few batches are long batches, and more than about 60 make Student's quantile
    hardly smaller: 1.998 for 64, 1.960 for infinitely many.

    Args:
        paths: The number of paths.
        blocks: The number of blocks of a path, a power of two.
        least: The wanted number of batches of all paths.

    Example:
        >>> from sdetools.estimates.batch_means import default_batches
        >>> default_batches(4, 64), default_batches(64, 64), default_batches(1, 64)
        (16, 1, 64)
    """
    batches = 1
    while batches * paths < least and batches < blocks:
        batches *= 2
    return batches
