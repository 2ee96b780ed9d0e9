"""`python -m benchmarks.gpu_check`: names in one line what is not installed, or runs the checks."""

from __future__ import annotations

import importlib.util
import sys

# By the name that is imported, and what brings it. The last is pure Python; the others come with a torch installation.
NEEDED = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "PIL": "pillow", "timm": "timm"}
PYTHON = (3, 11)
CANNOT_RUN = 4


def missing() -> str | None:
    """Return one line that names what this interpreter lacks and what to do; None if nothing is missing."""
    here = f"gpu_check: {sys.executable} (Python {sys.version.split()[0]})"
    if sys.version_info < PYTHON:
        return f"{here} is too old: at least {'.'.join(map(str, PYTHON))}; choose another by PYTHON=..."
    lacking = [brought for name, brought in NEEDED.items() if importlib.util.find_spec(name) is None]
    if lacking == ["timm"]:
        return f"{here} has no timm: pure Python, {sys.executable} -m pip install --no-deps timm (or its wheel) is all"
    if lacking:
        return f"{here} has no {', '.join(lacking)}; take the interpreter that has torch, by PYTHON=/its/bin/python3"
    return None


def main() -> int:
    """Run the checks, or print what is missing and return a separate exit code."""
    if (why := missing()) is not None:
        print(why, file=sys.stderr)
        return CANNOT_RUN
    try:
        from benchmarks.gpu_check import check
    except ImportError as error:  # parts that are there and do not go together: a torchvision of another torch, say
        from importlib.metadata import version

        installed = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm"))
        print(f"gpu_check: {installed} cannot be used together here: {error}", file=sys.stderr)
        return CANNOT_RUN
    return check.main()


if __name__ == "__main__":
    sys.exit(main())
