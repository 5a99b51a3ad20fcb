"""May I drop momentum here? Labels, fit and evaluation of the probability of \"keep\"; a package of the folder `benchmarks`."""
