"""`python -m notebooks`: execute the notebooks on the records there are and keep them with their outputs.

make notebooks                                    # local scale, runs/
REPRO_SCALE=smoke REPRO_RUNS=somewhere python -m notebooks --out elsewhere
REPRO_RUNS=pulled python -m notebooks comparing_runs     # runs from W&B: `repro wandb pull PROJECT --runs pulled`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 120
LARGEST_BYTES = 300_000


def execute(source: Path, target: Path) -> None:
    """Execute one notebook from the current folder and write it, with what it put out and nothing of the machine."""
    notebook = nbformat.read(source, as_version=4)
    NotebookClient(
        notebook, timeout=TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": Path.cwd()}}
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell began and ended
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def main() -> int:
    """Execute all; 1 where one fails, grows too large or names a place on this machine."""
    parser = argparse.ArgumentParser(prog="python -m notebooks", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="where the executed notebooks go (default: in place)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of notebooks, without .ipynb (default: all)")
    options = parser.parse_args()
    out, every = options.out, {path.stem: path for path in sorted(HERE.glob("*.ipynb"))}
    if unknown := [name for name in options.names if name not in every]:
        parser.error(f"no notebook {unknown[0]!r}; there are {', '.join(every)}")
    for source in [every[name] for name in options.names or every]:
        target = out / source.name
        try:
            execute(source, target)
        except CellExecutionError as error:
            print(f"{source.name}: {error}", file=sys.stderr)
            return 1
        size, text = target.stat().st_size, target.read_text(encoding="utf-8")
        if size > LARGEST_BYTES or str(Path.cwd()) in text or str(Path.home()) + "/" in text:
            print(f"{source.name}: {size} bytes, or a path of this machine in it", file=sys.stderr)
            return 1
        print(f"{source.name}: {size // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
