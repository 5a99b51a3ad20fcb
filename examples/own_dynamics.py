"""A method of your own is its one-step rule: here Nesterov's momentum in torch's form, compared with plain SGD."""

import sdetools as st


class Nesterov(st.Dynamics):
    """v' = mu v + g, x' = x - lr (g + mu v'): written once, evaluated on arrays, traced into a kernel."""

    parts = ("x", "v")
    coefficients = ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, v = state
        g = oracle(x)
        v = beta * v + g
        return x - (1 - beta) * eta * (g + beta * v), v


loss = st.losses.double_well()
noise = st.noise.gaussian(dim=1)
h = f"{loss.names[0]}**2"


def main():
    """Measure the gap between Nesterov's momentum and SGD for decreasing learning rates."""
    print("Nesterov with lr = (1 - mu) eta against SGD with eta, double well, sigma = eta^-1/2, mu = 0.9:")
    for eta in (0.02, 0.01, 0.005):
        oracle = st.NoisyOracle(loss, noise, sigma=eta**-0.5)
        plan = st.schedules.constant(eta=eta, beta=0.9)
        gap = st.weak_gap(Nesterov(oracle, plan), st.SGD(oracle, plan.averaged()), [0.5], horizon=1.0, paths=40_000, observe=[h])
        print(f"  eta = {eta:<6} {gap.sup(h)}")
    wrong = st.weak_gap(
        Nesterov(oracle, plan),
        st.SGD(oracle, st.schedules.constant(eta=eta * 0.5), step_time=eta),
        [0.5], horizon=1.0, paths=40_000, observe=[h],
    )  # fmt: skip
    print(f"  against SGD at half the rate: {wrong.sup(h)}")


if __name__ == "__main__":
    main()
