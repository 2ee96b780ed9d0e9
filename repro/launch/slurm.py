"""What Slurm says and is told, through its own commands: squeue, scontrol, sacct, scancel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro.errors import UserError

TIMEOUT_S = 60
AT_ONCE = 200  # ids in one command
JOB_PREFIX = "repro-"  # of the name of every job of ours
# A command that ends like this has not heard the controller's answer; there may be one.
NO_ANSWER = re.compile(
    "no answer|timed? ?out|contact|connect|communication|transmit|unexpected|zero bytes|standby", re.I
)
ENDING = ("COMPLETING", "CANCELLED", "TIMEOUT", "DEADLINE")
# --all: partitions that the site hides from lists are no reason to take their jobs for gone.
EVERYBODY = ("squeue", "--all", "--noheader", "--array", "--format=%i|%j|%T|%N|%r")
UNKNOWN_USER = re.compile("invalid user", re.I)
# A person's habits for these commands: SQUEUE_STATES=R hides what waits, SBATCH_JOB_NAME beats what a job script says.
HABITS = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_")
# What a job tells its own processes. In one that was submitted from within another (salloc, srun --pty) srun would take
# it for what is asked of it: a SLURM_MEM_PER_CPU that is left over is fatal where a job has its memory per node.
OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_")
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")


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

    Nor does the job that they may be called from say anything. Which cluster it is (SLURM_CONF, SLURM_CLUSTERS) stays.
    """
    others = (*HABITS, *OF_A_JOB) if "SLURM_JOB_ID" in os.environ else HABITS
    return {name: value for name, value in os.environ.items() if name in OF_THE_CLUSTER or not name.startswith(others)}


def ask(*command: str) -> str:
    """What a command of Slurm's answers. Raises `UserError` with its own words where it fails."""
    return _answer(*command).stdout


def _answer(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=environment())
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout or "").strip().splitlines()
        raise UserError(f"{command[0]}: {words[-1] if words else 'failed'}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: no answer within {TIMEOUT_S} s; is the controller up?") from None
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not found; this is no machine of a Slurm cluster") from None


def queue(users: Iterable[int] = ()) -> dict[str, Job]:
    """The jobs of this user, and of other `users` (their numbers), by id, every task of an array for itself.

    squeue, not sacct: it works without accounting, where submitit's own states stay UNKNOWN.
    """
    return _jobs(_lines_of(sorted({os.getuid(), *users})))


def everybodys_queue() -> dict[str, Job]:
    """The same, whoever they belong to."""
    return _jobs(ask(*EVERYBODY))


def _jobs(text: str) -> dict[str, Job]:
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) < 5:  # of somebody whose job has a name of several lines
            continue
        id_, name, state, nodes, reason = fields
        # A number alone is not enough: a folder may have come from another cluster, and numbers may begin anew.
        if name.startswith(JOB_PREFIX):
            jobs[id_] = Job(id_, name, state, "" if reason == "None" else reason, nodes)
    return jobs


def _lines_of(users: Sequence[int]) -> str:
    """squeue's lines for these users, or for everybody where it does not know one of them.

    It leaves such a user's jobs out, with a word on stderr and success or failure as its version has it: somebody who
    has left, or a name service that is down, and runs at work would look as if they had none.
    """
    try:
        answer = _answer(*EVERYBODY, f"--user={','.join(map(str, users))}")
    except UserError as error:
        if not UNKNOWN_USER.search(str(error)):
            raise
    else:
        if not UNKNOWN_USER.search(answer.stderr):
            return answer.stdout
    return ask(*EVERYBODY)


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


def cancel(job_ids: Sequence[str]) -> dict[str, str]:
    """Cancel jobs, a few hundred at a time; returns those that Slurm has not cancelled, with its words."""
    refused: dict[str, str] = {}
    for start in range(0, len(job_ids), AT_ONCE):
        some = job_ids[start : start + AT_ONCE]
        words = _refusal(some)
        if words is None:
            continue
        # It does not say of each whether it took it: one by one. A controller that is away is away for all others.
        for id_ in some:
            said = words if NO_ANSWER.search(words) else _refusal([id_])
            if said is not None:
                refused[id_] = words = said
        if NO_ANSWER.search(words):
            return refused | dict.fromkeys(job_ids[start + AT_ONCE :], words)
    return refused


def _refusal(job_ids: Sequence[str]) -> str | None:
    try:
        ask("scancel", *job_ids)
    except UserError as error:
        return str(error)
    return None


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
