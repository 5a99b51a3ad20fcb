"""One step of a rule and the semigroup of an SDE as power series in the step: weak orders, leading errors, modified equations."""
