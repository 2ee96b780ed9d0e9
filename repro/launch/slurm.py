"""What Slurm says and is told, through its own commands: squeue, scontrol, sacct, scancel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro.errors import UserError

TIMEOUT_S = 60
JOB_PREFIX = "repro-"  # of the name of every job of ours
ENDING = ("COMPLETING", "CANCELLED", "TIMEOUT", "DEADLINE")
# A person's habits for these commands: SQUEUE_STATES=R hides what waits, SBATCH_JOB_NAME beats what a job script says.
HABITS = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_")


@dataclass(frozen=True)
class Job:
    """A job that Slurm has in its queue: waiting, running or ending. `id` is `16`, or `16_3` within an array."""

    id: str
    name: str
    state: str
    reason: str
    nodes: str


def is_job_id(text: str | None) -> bool:
    """Whether this is a job of Slurm's: `16`, `16_3`. `local-4711` is none."""
    return text is not None and text[:1].isdecimal()


def is_here() -> bool:
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def environment() -> dict[str, str]:
    """What Slurm's commands are given: they do what they are told, whatever a person has set for their own use of them.

    Which cluster it is (SLURM_CONF, SLURM_CLUSTERS) stays.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(HABITS)}


def ask(*command: str) -> str:
    """What a command of Slurm's answers. Raises `UserError` with its own words where it fails."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=environment()
        )
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout or "").strip().splitlines()
        raise UserError(f"{command[0]}: {words[-1] if words else 'failed'}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: no answer within {TIMEOUT_S} s; is the controller up?") from None
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not found; this is no machine of a Slurm cluster") from None
    return answer.stdout


def queue(users: Iterable[int] = ()) -> dict[str, Job]:
    """The jobs of this user, and of other `users` (their numbers), by id, every task of an array for itself.

    squeue, not sacct: it works without accounting, where submitit's own states stay UNKNOWN.
    """
    jobs = {}
    who = ",".join(map(str, sorted({os.getuid(), *users})))
    # --all: partitions that the site hides from lists are no reason to take their jobs for gone.
    text = ask("squeue", "--all", "--noheader", "--array", f"--user={who}", "--format=%i|%j|%T|%N|%r")
    for line in text.splitlines():
        id_, name, state, nodes, reason = line.strip().split("|", 4)
        # A number alone is not enough: a folder may have come from another cluster, and numbers may begin anew.
        if name.startswith(JOB_PREFIX):
            jobs[id_] = Job(id_, name, state, "" if reason == "None" else reason, nodes)
    return jobs


@dataclass(frozen=True)
class OwnJob:
    """What a job learns about itself while it is being stopped.

    Slurm calls a job COMPLETING until its processes have gone, whatever it means to do with it afterwards. What tells:
    one that Slurm has requeued has one restart more than its processes know of.
    """

    state: str
    restarts: int
    was_preempted: bool

    def has_ended_for_good(self, restarts: int) -> bool:
        """Whether Slurm ends it and will not start it again; `restarts` is what the job's own processes know of.

        A preempted job that was not requeued has met PreemptMode=CANCEL: nobody wanted it to stop for good.
        """
        return self.state in ENDING and self.restarts == restarts and not self.was_preempted


def own_job(job_id: str) -> OwnJob:
    """One job as the controller sees it. For a job itself to ask: raises what `subprocess` raises, and `ValueError`."""
    answer = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", job_id], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    fields = dict(word.split("=", 1) for word in answer.stdout.split() if "=" in word)
    return OwnJob(
        fields.get("JobState", "UNKNOWN"),
        int(fields.get("Restarts", "0")),
        fields.get("PreemptTime", "None") != "None",
    )


def requeue(job_id: str) -> None:
    """Put a running job back into the queue. For a job itself: raises what `subprocess` raises."""
    subprocess.run(["scontrol", "requeue", job_id], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs, a few hundred at a time."""
    for start in range(0, len(job_ids), 200):
        ask("scancel", *job_ids[start : start + 200])


def configuration() -> dict[str, str]:
    """`scontrol show config` as a mapping."""
    pairs = [line.split("=", 1) for line in ask("scontrol", "show", "config").splitlines() if "=" in line]
    return {key.strip(): value.strip() for key, value in pairs}


def partition(name: str | None) -> dict[str, str]:
    """`scontrol show partition` as a mapping; None: of the site's default one, empty where it has none.

    Raises `UserError` for one that is not there.
    """
    lines = ask("scontrol", "--all", "--oneliner", "show", "partition", *([name] if name else [])).splitlines()
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return next((each for each in found if name or each.get("Default") == "YES"), {})


def ended(job_ids: Iterable[str]) -> dict[str, str]:
    """How jobs ended, by id, as accounting tells it; empty where there is no accounting."""
    ids = sorted({id_ for id_ in job_ids if is_job_id(id_)})
    if not ids or shutil.which("sacct") is None:
        return {}
    try:
        text = ask(
            "sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", "--jobs", ",".join(ids)
        )
    except UserError:  # "Slurm accounting storage is disabled"
        return {}
    return dict(line.split("|", 1) for line in text.splitlines() if "|" in line)
