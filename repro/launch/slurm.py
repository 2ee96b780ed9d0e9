"""Slurm's commands: squeue, scontrol, sacct, scancel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro.errors import UserError

TIMEOUT_S = 60
IDS_PER_COMMAND = 200
JOB_PREFIX = "repro-"  # of the names of our jobs
# Messages after which the controller may still have done what it was asked for.
NO_ANSWER = re.compile(
    "no answer|timed? ?out|contact|connect|communication|transmit|unexpected|zero bytes|standby", re.I
)
NO_CONFIGURATION = re.compile(r"configuration source|slurm\.conf", re.I)  # of an installation without a cluster
ENDING = ("COMPLETING", "CANCELLED", "TIMEOUT", "DEADLINE")
# --all: also jobs in partitions that the site hides.
SQUEUE = ("squeue", "--all", "--noheader", "--array", "--format=%i|%j|%T|%N|%r")
UNKNOWN_USER = re.compile("invalid user", re.I)
# Defaults that users set for their own commands: SQUEUE_STATES=R hides pending jobs.
USER_DEFAULTS = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_")
# Settings of the job that we may be called from (salloc, srun --pty): in ours, srun would take them for requests, and a
# leftover SLURM_MEM_PER_CPU is fatal if the job has its memory per node.
OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_")
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")


@dataclass(frozen=True)
class Job:
    """A job in Slurm's queue. `id` is `16`, or `16_3` for a task of an array."""

    id: str
    name: str
    state: str
    reason: str
    nodes: str


def is_job_id(text: str | None) -> bool:
    """Whether this is the id of a Slurm job: `16`, `16_3`. (Earlier versions noted `local-4711` for other runs.)"""
    return text is not None and text[:1].isdecimal()


def is_here() -> bool:
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def environment() -> dict[str, str]:
    """The environment for Slurm's commands: without users' own defaults, and without those of the job around us."""
    hidden = (*USER_DEFAULTS, *OF_A_JOB) if "SLURM_JOB_ID" in os.environ else USER_DEFAULTS
    return {name: value for name, value in os.environ.items() if name in OF_THE_CLUSTER or not name.startswith(hidden)}


def ask(*command: str) -> str:
    """The output of a command. Raises `UserError` with its message if it fails."""
    return _answer(*command).stdout


def _answer(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=environment())
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout or "").strip().splitlines()
        answer = words[-1].removeprefix(f"{command[0]}: ") if words else "failed"
        advice = "; set SLURM_CONF, or run this on a login node" if NO_CONFIGURATION.search(answer) else ""
        raise UserError(f"{command[0]}: {answer}{advice}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: no answer within {TIMEOUT_S} s; is the controller up?") from None
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not found; this machine is not part of a Slurm cluster") from None


def queue(users: Iterable[int] = ()) -> dict[str, Job]:
    """Our jobs of this user and of `users` (uids) by id, each task of an array separately. Works without accounting."""
    return _jobs(_lines_of(sorted({os.getuid(), *users})))


def queue_of_everyone() -> dict[str, Job]:
    """Our jobs of all users by id."""
    return _jobs(ask(*SQUEUE))


def _jobs(text: str) -> dict[str, Job]:
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) < 5:  # the name of another user's job may have several lines
            continue
        id_, name, state, nodes, reason = fields
        # The id alone is not enough: ids start again, and a folder may have been copied from another cluster.
        if name.startswith(JOB_PREFIX):
            jobs[id_] = Job(id_, name, state, "" if reason == "None" else reason, nodes)
    return jobs


def _lines_of(users: Sequence[int]) -> str:
    """squeue's lines for these users; for all users if squeue does not know one of them.

    It omits the jobs of an unknown user (who has left, or while the name service is down), and, depending on its
    version, succeeds nevertheless.
    """
    try:
        answer = _answer(*SQUEUE, f"--user={','.join(map(str, users))}")
    except UserError as error:
        if not UNKNOWN_USER.search(str(error)):
            raise
    else:
        if not UNKNOWN_USER.search(answer.stderr):
            return answer.stdout
    return ask(*SQUEUE)


@dataclass(frozen=True)
class OwnJob:
    """A job as it sees itself while it is being stopped.

    Slurm shows it as COMPLETING until its processes are gone, whatever happens next. But if Slurm has requeued it, it
    has one restart more than its processes know of.
    """

    state: str
    restarts: int
    was_preempted: bool

    def has_ended_for_good(self, restarts: int) -> bool:
        """Whether Slurm will not start it again; `restarts` is the number that the job's processes know of.

        A preempted job that is not requeued (PreemptMode=CANCEL) was not cancelled by a user.
        """
        return self.state in ENDING and self.restarts == restarts and not self.was_preempted


def own_job(job_id: str) -> OwnJob:
    """The job of this process. Raises `UserError` if Slurm does not answer, and `ValueError`."""
    answer = ask("scontrol", "--oneliner", "show", "job", job_id)
    fields = dict(word.split("=", 1) for word in answer.split() if "=" in word)
    return OwnJob(
        fields.get("JobState", "UNKNOWN"),
        int(fields.get("Restarts", "0")),
        fields.get("PreemptTime", "None") != "None",
    )


def requeue(job_id: str) -> None:
    """Requeue a running job. Raises `UserError` if Slurm refuses or does not answer."""
    ask("scontrol", "requeue", job_id)


def cancel(job_ids: Sequence[str]) -> dict[str, str]:
    """Cancel jobs; returns those that Slurm has not cancelled, with its messages."""
    refused: dict[str, str] = {}
    for start in range(0, len(job_ids), IDS_PER_COMMAND):
        message = _refusal(job_ids[start : start + IDS_PER_COMMAND])
        if message is None:
            continue
        # scancel does not tell which of them it has cancelled. If the controller is down, none of the others either.
        for id_ in job_ids[start : start + IDS_PER_COMMAND]:
            own = message if NO_ANSWER.search(message) else _refusal([id_])
            if own is not None:
                refused[id_] = message = own
        if NO_ANSWER.search(message):
            return refused | dict.fromkeys(job_ids[start + IDS_PER_COMMAND :], message)
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
    """`scontrol show partition` as a mapping; for None, that of the default partition, if there is one.

    Raises `UserError` if there is no partition of this name.
    """
    lines = ask("scontrol", "--all", "--oneliner", "show", "partition", *([name] if name else [])).splitlines()
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return next((each for each in found if name or each.get("Default") == "YES"), {})


def ended(job_ids: Iterable[str]) -> dict[str, str]:
    """How jobs ended, by id, according to accounting; empty without accounting."""
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
