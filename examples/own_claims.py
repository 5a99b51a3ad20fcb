"""Claims of your own: statements, their measurements, and controls that must fail; `sdetools verify examples/own_claims.py`."""

import sdetools as st

ETA, BETA = 2.0**-5, 0.9
loss = st.losses.from_expression("x**2 / 2")
oracle = st.NoisyOracle(loss, st.noise.rademacher(1), sigma=ETA**-0.5)
momentum = st.SGDM(oracle, st.schedules.constant(eta=ETA, beta=BETA))


@st.claim(
    "same-rate-same-law",
    statement=r"On $L = x^2/2$, $\sigma = \eta^{-1/2}$, SGDM and SGD at its rate keep $|E x_k^2 - E z_k^2| \le 10\,\eta$.",
    source="Theorem 3.5",
)
def same_rate(run):
    """Bound the gap between SGDM and SGD at the same learning rate."""

    def gap(rate):
        sgd = st.SGD(oracle, st.schedules.constant(eta=rate * ETA), step_time=ETA)
        return st.weak_gap(momentum, sgd, x0=[1.0], horizon=1.0, observe=["x**2"], **run.options()).sup("x**2")

    run.measure("largest gap in x^2", gap(1.0), at_most=10 * ETA)
    with run.control("SGD at twice the rate"):
        run.measure("largest gap in x^2", gap(2.0), at_most=10 * ETA)


@st.claim(
    "exact-second-moment",
    statement=r"At finite $\eta$ the simulated $E x_k^2$ is the number of the moment recursion, for noise of any law.",
    source="Definition 2.3",
)
def second_moment(run):
    """Compare a simulated second moment with the exact one."""
    simulated = st.simulate(momentum, x0=[1.0], horizon=1.0, observe=["x**2"], times=[1.0], **run.options()).at("x**2")
    exact = st.exact.moments(momentum, x0=[1.0], steps=32, record=[32])
    run.measure("E x^2 at t = 1", simulated, expected=float(st.exact.expectation(exact, "x**2")[-1]), tolerance=0.05)


def main():
    """Verify the claims from Python, as `sdetools verify` does."""
    results = st.verify(__file__)
    for claim in results.claims:
        print(f"{claim.verdict:<13} {claim.id}: {claim.reason}")


if __name__ == "__main__":
    main()
