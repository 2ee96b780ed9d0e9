"""Calls of Slurm's commands: squeue, scontrol, sacct, scancel."""

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
JOB_PREFIX = "repro-"  # first part of the name of each of our jobs
# Messages after which the controller may still have carried out the request.
NO_ANSWER = re.compile(
    "no answer|timed? ?out|contact|connect|communication|transmit|unexpected|zero bytes|standby", re.I
)
NO_CONFIGURATION = re.compile(r"configuration source|slurm\.conf", re.I)  # Slurm is installed, but finds no cluster
ENDING_STATES = ("COMPLETING", "CANCELLED", "TIMEOUT", "DEADLINE")
# --all includes jobs in partitions that the site hides.
SQUEUE = ("squeue", "--all", "--noheader", "--array", "--format=%i|%j|%T|%N|%r")
UNKNOWN_USER = re.compile("invalid user", re.I)
# Users set these to change the defaults of their own commands: SQUEUE_STATES=R would hide pending jobs.
USER_DEFAULT_PREFIXES = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_")
# Variables of the job that this process may run in (salloc, srun --pty). srun would take them for requests of the new
# job, and a leftover SLURM_MEM_PER_CPU is fatal if the new job requests memory per node.
JOB_VARIABLE_PREFIXES = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_")
CLUSTER_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")


@dataclass(frozen=True)
class Job:
    """A job in Slurm's queue. `id` is `16`, or `16_3` for a task of an array."""

    id: str
    name: str
    state: str
    reason: str
    nodes: str


def is_job_id(text: str | None) -> bool:
    """Return whether this is the id of a Slurm job: `16`, `16_3`. Earlier versions also had `local-4711`."""
    return text is not None and text[:1].isdecimal()


def is_available() -> bool:
    """Return whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def restart_count() -> int:
    """Return how often Slurm has requeued the job of this process; 0 outside of a job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def environment() -> dict[str, str]:
    """Return the environment for Slurm's commands, without the user's defaults and the variables of an outer job."""
    hidden = (*USER_DEFAULT_PREFIXES, *JOB_VARIABLE_PREFIXES) if "SLURM_JOB_ID" in os.environ else USER_DEFAULT_PREFIXES
    return {
        name: value for name, value in os.environ.items() if name in CLUSTER_VARIABLES or not name.startswith(hidden)
    }


def ask(*command: str) -> str:
    """Run a command and return its stdout. Raises `UserError` with the command's message if it fails."""
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
    """Return this project's jobs of this user and of `users` (uids) by job id, with one entry per array task.

    This asks squeue, so it does not need accounting.
    """
    return _jobs(_lines_of(sorted({os.getuid(), *users})))


def queue_of_everyone() -> dict[str, Job]:
    """Return this project's jobs of all users by job id."""
    return _jobs(ask(*SQUEUE))


def _jobs(text: str) -> dict[str, Job]:
    jobs = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 4)
        if len(fields) < 5:  # the name of another user's job may contain line breaks
            continue
        id_, name, state, nodes, reason = fields
        # A matching id alone proves nothing: ids start over, and a runs folder may have been copied between clusters.
        if name.startswith(JOB_PREFIX):
            jobs[id_] = Job(id_, name, state, "" if reason == "None" else reason, nodes)
    return jobs


def _lines_of(users: Sequence[int]) -> str:
    """Return squeue's lines for these users, or for all users if squeue does not know one of them.

    squeue omits the jobs of an unknown user (one who has left, or anyone while the name service is down), and some
    versions succeed nevertheless.
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
    """The job of this process, as Slurm reports it while it is being stopped.

    Slurm reports COMPLETING until all processes have exited, whether or not the job will run again. But if Slurm has
    requeued the job, its number of restarts is already higher than `restart_count()`.
    """

    state: str
    restarts: int
    was_preempted: bool

    def has_ended_for_good(self, restarts: int) -> bool:
        """Return whether a user or a limit has ended the job for good; `restarts` is its `restart_count()`.

        This is False for a preempted job, also if it is not requeued (PreemptMode=CANCEL): no user has cancelled it.
        """
        return self.state in ENDING_STATES and self.restarts == restarts and not self.was_preempted


def own_job(job_id: str) -> OwnJob:
    """Return the job of this process.

    Raises `UserError` if Slurm does not answer, and `ValueError` if the number of restarts is not an integer.
    """
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
    """Cancel jobs; return Slurm's message for each job that it has not cancelled."""
    refused: dict[str, str] = {}
    for start in range(0, len(job_ids), IDS_PER_COMMAND):
        message = _refusal(job_ids[start : start + IDS_PER_COMMAND])
        if message is None:
            continue
        # scancel does not say which jobs it has cancelled, so try each. If the controller is down, skip the rest.
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
    """Return the output of `scontrol show config` as a mapping."""
    pairs = [line.split("=", 1) for line in ask("scontrol", "show", "config").splitlines() if "=" in line]
    return {key.strip(): value.strip() for key, value in pairs}


def partition(name: str | None) -> dict[str, str]:
    """Return the output of `scontrol show partition` as a mapping.

    For None, it is that of the default partition, empty if there is none. Raises `UserError` if no partition has this
    name.
    """
    lines = ask("scontrol", "--all", "--oneliner", "show", "partition", *([name] if name else [])).splitlines()
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return next((each for each in found if name or each.get("Default") == "YES"), {})


def ended(job_ids: Iterable[str]) -> dict[str, str]:
    """Return the final state of jobs by id, according to accounting; empty without accounting."""
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
