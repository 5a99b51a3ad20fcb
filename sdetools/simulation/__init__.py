"""The only loops over paths and steps: driving noise, kernels, chunks, executors, the store."""
