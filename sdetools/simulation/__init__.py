"""The simulation of paths: driving noise, kernels, backends, chunks, executors and the store."""
