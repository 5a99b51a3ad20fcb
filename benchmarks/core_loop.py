"""The core loop beside its peers, and what coupling saves: the same as `sdetools bench`."""

from sdetools.benchmarking import main

if __name__ == "__main__":
    raise SystemExit(main())
