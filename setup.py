"""Says in one line that this Python is too old or too new, where pip would blame packages. See pyproject.toml."""

import sys

from setuptools import setup

if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    own = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"Small & Fast needs Python 3.10 to 3.13, and this is {own}. Cure: install one of them, and make the virtual "
        "environment with it: python3.12 -m venv .venv"
    )
setup()
