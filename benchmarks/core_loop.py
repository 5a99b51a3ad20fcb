"""The core loop in several implementations, and variance reduction by coupling: the same as `sdetools bench`."""

from sdetools.cli.bench_command import main

if __name__ == "__main__":
    raise SystemExit(main())
