"""Multilevel Monte Carlo: the estimator, its levels, the search for the first of them, and its result."""
