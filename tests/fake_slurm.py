"""A Slurm of shell scripts whose sbatch does what a test tells it; the real one is in tests/slurm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SBATCH = """#!/bin/sh
for script; do :; done
name=${{SBATCH_JOB_NAME:-$(sed -n 's/^#SBATCH --job-name=//p' "$script")}}
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
cat "$script" >> {folder}/scripts
echo x >> {folder}/submitted
number=$(wc -l < {folder}/submitted)
if grep -q taken {folder}/answer; then
    if [ -z "$last" ]; then echo "$number|$name|PENDING||Priority" >> {folder}/queue
    else for task in $(seq 0 "$last"); do echo "${{number}}_$task|$name|PENDING||Priority" >> {folder}/queue; done; fi
fi
if grep -q 'error' {folder}/answer; then sed -n 's/^error //p' {folder}/answer >&2; exit 1; fi
echo "Submitted batch job $number"
"""
# SQUEUE_STATES filters, and jobs of a hidden partition are shown to `--all` only, as by the real one.
SQUEUE = """#!/bin/sh
echo "$*" | grep -q -e --all || {{ cat {folder}/queue | grep -v hidden; exit 0; }}
if [ -n "$SQUEUE_STATES" ]; then grep "|$SQUEUE_STATES|" {folder}/queue; exit 0; fi
cat {folder}/queue
"""
# As newer ones do it: a refusal of one is an error, and says nothing about the others.
SCANCEL = """#!/bin/sh
echo "$*" >> {folder}/cancelled
for id; do
    if grep -q -x -e "$id" {folder}/refused; then echo "scancel: error: $(cat {folder}/refusal)" >&2; failed=1
    else sed -i "/^$id|/d" {folder}/queue; fi
done
exit $failed
"""
SCONTROL = """#!/bin/sh
case "$*" in *partition*) cat {folder}/partition;; *) cat {folder}/configuration;; esac
"""


class FakeSlurm:
    """Puts sbatch, srun, squeue, scontrol and scancel before everything else on the path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        scripts = {
            "sbatch": SBATCH.format(folder=folder),
            "squeue": SQUEUE.format(folder=folder),
            "scontrol": SCONTROL.format(folder=folder),
            "srun": f'#!/bin/sh\necho "$*" >> {folder}/tried\necho scontrol python folder data end\n',
            "scancel": SCANCEL.format(folder=folder),
        }
        for name, text in scripts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        for name in ("queue", "submitted", "scripts", "tried", "cancelled", "refused", "refusal"):
            (folder / name).touch()
        self.has("MaxArraySize = 4")
        self.will("taken")
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def will(self, *lines: str) -> None:
        """What sbatch does from now on: `taken` (a job appears in the queue), `error WORDS` (it fails with these)."""
        (self.folder / "answer").write_text("\n".join(lines) + "\n")

    def has(self, *lines: str, partition: str = "PartitionName=low Default=YES PreemptMode=OFF") -> None:
        """The configuration and the partitions that scontrol shows."""
        (self.folder / "configuration").write_text("\n".join(lines) + "\n")
        (self.folder / "partition").write_text(partition + "\n")

    def refuses(self, words: str, *ids: str) -> None:
        """The jobs that scancel leaves alone, and what it says of that."""
        (self.folder / "refused").write_text("\n".join(ids) + "\n")
        (self.folder / "refusal").write_text(words)

    @property
    def cancelled(self) -> list[str]:
        """The words of each scancel."""
        return (self.folder / "cancelled").read_text().splitlines()

    @property
    def tried(self) -> list[list[str]]:
        """The words of each srun."""
        return [line.split() for line in (self.folder / "tried").read_text().splitlines()]

    @property
    def queue(self) -> list[str]:
        """The ids in the queue."""
        return [line.split("|")[0] for line in (self.folder / "queue").read_text().splitlines()]

    @property
    def submissions(self) -> int:
        """How often sbatch was called."""
        return len((self.folder / "submitted").read_text().splitlines())

    def asked(self, option: str) -> list[str]:
        """The values of an option in all job scripts, in order."""
        lines = (self.folder / "scripts").read_text().splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith(f"#SBATCH --{option}=")]
