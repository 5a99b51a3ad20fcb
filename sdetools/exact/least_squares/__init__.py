"""Streaming least squares without Monte Carlo: spectra, exact risks, rates, stability, and when momentum may be dropped."""
