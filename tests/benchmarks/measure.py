"""The numbers that a measurement is asked for."""

from __future__ import annotations

import argparse
import sys


def arguments(**defaults: int) -> argparse.Namespace:
    """The numbers that the command line sets, else `defaults`."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default: {default}")
    return parser.parse_args()
