"""Which SDE is a rule of your own, and how good? Its equation, its weak order and the constant of the error, derived from the rule's text."""

import sdetools as st


class Lookahead(st.Dynamics):
    """Two half steps on the same minibatch, the second from where the first ended."""

    formula = r"y = x_k - \tfrac\eta2 g(x_k), \quad x_{k+1} = y - \tfrac\eta2 g(y)"

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        half = x - 0.5 * eta * oracle(x)
        return (half - 0.5 * eta * oracle(half),)


def rule(eta, loss="x**2/2"):
    """Return the rule at a learning rate."""
    oracle = st.NoisyOracle(st.losses.from_expression(loss, "x"), st.noise.gaussian(dim=1))
    return Lookahead(oracle, st.schedules.constant(eta))


own = rule(0.1, "x**2/2 + x**4/4")
sde = st.exact.modified_equation(own, weak_order=2)
print(sde.table())
print(f"as good as derived: weak order {st.exact.generator_gap(own, sde).weak_order:g}")
borrowed = st.exact.generator_gap(own, st.ModifiedSDE(own.oracle, 0.1))
print(f"the equation of SGD: weak order {borrowed.weak_order:g}, leading error tau^{borrowed.power:g} [{borrowed.text}]")

gap = st.exact.generator_gap(rule(0.1), st.GradientFlow(rule(0.1).oracle, st.schedules.constant(0.1)))
derived = gap.constant("x**2", x0=[1.0], horizon=1.0)
for eta in (1 / 16, 1 / 64, 1 / 256):
    steps = round(1 / eta)
    moved = st.exact.moments(rule(eta), [1.0], steps, record=[steps])
    flow = st.exact.solution(st.GradientFlow(rule(eta).oracle, st.schedules.constant(eta)), [1.0], [1.0])
    seen = (st.exact.expectation(moved, "x**2") - st.exact.expectation(flow, "x**2"))[0] / eta
    print(f"eta = {eta:<10g} error of E x^2 over eta: {seen:.6f} (derived limit {derived:.6f})")
