"""What a Slurm has to have for runs to survive on it: its settings, and what a job on a compute node sees."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from repro.config import Config, Data, SlurmLauncher
from repro.data.places import find_data
from repro.errors import UserError
from repro.launch import slurm
from repro.launch.check import Check

ASK_AGAIN = "run the launch again, from cron say"
NODE_WAIT_S = 60


def by_label(data: Sequence[Data]) -> dict[str, Data]:
    """Data sets by what their checks are called: `data`, and `data kinetics400` for a second one."""
    return {f"data {each.name}" if number else "data": each for number, each in enumerate(data)}


def cluster_checks(config: Config, root: Path, data: Mapping[str, Data] | None = None) -> Iterator[Check]:
    """Checks of this machine's Slurm; `root` is the runs folder. A job is tried where launcher=slurm.

    `data` are the data sets that it looks for on a node, None: the config's.
    """
    launcher = config.launcher if isinstance(config.launcher, SlurmLauncher) else None
    bad: Literal["warn", "fail"] = "warn" if launcher is None else "fail"
    if not slurm.is_here():
        advice = "needed for launcher=slurm only" if launcher is None else "use a login node, or launcher=local"
        yield Check("slurm", bad, "no sbatch", advice)
        return
    try:
        version = slurm.ask("sbatch", "--version").strip()
        configuration = slurm.configuration()
        slurm.queue()
    except UserError as error:
        yield Check("slurm", bad, str(error), "the controller does not answer: try again later")
        return
    yield Check("slurm", "pass", version)
    partition: dict[str, str] = {}
    if launcher is not None:
        try:
            partition = slurm.partition(launcher.partition)
        except UserError as error:
            yield Check("partition", "fail", f"{launcher.partition}: {error}", "sinfo lists them: launcher.partition=")
            return
        if launcher.partition is not None:
            yield Check("partition", "pass", launcher.partition)
    mode = partition.get("PreemptMode", configuration.get("PreemptMode", "OFF"))
    yield _preempt_mode(mode)
    yield _preempt_signal(mode, configuration.get("SlurmctldParameters", ""))
    if launcher is not None:
        by_qos = configuration.get("PreemptType", "").endswith("qos")
        yield _grace_time(mode, None if by_qos else partition.get("GraceTime"), launcher.signal_lead_s)
    yield _array_size(configuration.get("MaxArraySize", ""))
    yield _accounting(configuration.get("AccountingStorageType", ""))
    yield _private(configuration.get("PrivateData", "none"))
    if launcher is None:
        advice = "repro doctor launcher=slurm submits a one-minute job to find out"
        yield Check("scontrol on compute nodes", "warn", "not tried", advice)
    else:
        every = by_label([config.data]) if data is None else data
        folders = {label: folder for label, each in every.items() if (folder := _data_root(each)) is not None}
        yield from _on_a_node(launcher, folders, root)


def _data_root(data: Data) -> Path | None:
    """The folder that nodes have to see; None where runs need none."""
    try:
        needs = find_data(data) is not None
    except UserError:  # not here, or not whole: nodes may have it on disks of their own
        needs = True
    return Path(data.root).expanduser().absolute() if needs and data.root is not None else None


def _preempt_mode(mode: str) -> Check:
    if "CANCEL" in mode:
        return Check("PreemptMode", "warn", mode, f"preempted jobs are not requeued: {ASK_AGAIN}")
    return Check("PreemptMode", "pass", mode)


def _preempt_signal(mode: str, parameters: str) -> Check:
    name = "preempt_send_user_signal"
    if name in parameters:
        return Check(name, "pass", "set")
    if mode == "OFF":
        return Check(name, "pass", "not needed: nothing is preempted")
    return Check(name, "warn", "not set", "a preempted job may be told nothing: keep run.checkpoint_every_s small")


def _grace_time(mode: str, seconds: str | None, lead_s: int) -> Check:
    """How long a preempted job has from the signal to its end; `seconds` is the partition's, None: it is the QOS's."""
    if mode == "OFF":
        return Check("GraceTime", "pass", "not needed: nothing is preempted")
    too_short = (
        f"a preempted job has this long, not launcher.signal_lead_s={lead_s}: the slowest update and a save have to "
        "fit, else keep run.checkpoint_every_s small"
    )
    if seconds is None or not seconds.isdecimal():
        where = "sacctmgr show qos format=Name,GraceTime"
        return Check("GraceTime", "warn", seconds or "the QOS says it", f"{where}; {too_short}")
    if int(seconds) < lead_s:
        return Check("GraceTime", "warn", f"{seconds} s", too_short)
    return Check("GraceTime", "pass", f"{seconds} s")


def _array_size(size: str) -> Check:
    if not size.isdecimal():
        return Check("MaxArraySize", "warn", size or "unknown", "say it yourself where sbatch refuses: array_size=")
    if int(size) < 2:
        advice = "nothing: each run becomes a job of its own, which takes longer to submit and fills the queue"
        return Check("MaxArraySize", "warn", f"{size}: no arrays", advice)
    return Check("MaxArraySize", "pass", f"{size}: arrays of at most {int(size) - 1}")


def _accounting(storage: str) -> Check:
    if storage in ("", "(null)") or storage.endswith("none"):
        return Check("accounting", "warn", "off", "sacct knows nothing: records and squeue are asked instead")
    return Check("accounting", "pass", storage)


def _private(data: str) -> Check:
    if "jobs" not in data.split(","):
        return Check("PrivateData", "pass", f"{data}: people who share a runs folder see each other's jobs")
    advice = "of a shared runs folder you would start what others have in the queue: a folder each, or ask the admin"
    return Check("PrivateData", "warn", data, advice)


def _on_a_node(launcher: SlurmLauncher, data: Mapping[str, Path], root: Path) -> Iterator[Check]:
    """What a task does, tried on a node: it starts python, in its container, after the setup lines; it requeues itself
    with scontrol, writes into the runs folder and reads the data.
    """
    name = "scontrol on compute nodes"
    command = ["srun", "--immediate=30", "--time=1", "--ntasks=1", "--job-name=repro-doctor"]
    # With the GPUs of a run: a partition of GPU nodes may take no job without, and one without GPUs no run.
    for key in ("account", "partition", "qos", "constraint", "reservation", "exclude", "gres", "gpus_per_node"):
        value = getattr(launcher, key)
        command += [f"--{key.replace('_', '-')}={value}"] if value else []
    tries = {
        "scontrol": "scontrol ping >/dev/null",
        "python": f"{shlex.quote(sys.executable)} -c 'import repro'",
        "folder": f"test -w {shlex.quote(str(root.absolute()))}",
    }
    words = {label: label.replace(" ", ":") for label in data}  # as a word of what the task prints
    tries |= {words[label]: f"test -r {shlex.quote(str(folder))}" for label, folder in data.items()}
    script = "; ".join(f"{what} && echo {key}" for key, what in tries.items())
    task = shlex.join([*launcher.container, "sh", "-c", f"{script}; echo end"])
    try:
        answer = subprocess.run(
            [*command, "sh", "-c", "\n".join([*launcher.setup, task])],
            capture_output=True,
            text=True,
            timeout=NODE_WAIT_S,
            check=False,
            env=slurm.environment(),
        )
    except subprocess.TimeoutExpired:
        yield Check(name, "warn", "no node was free within a minute", "try again later")
        return
    seen = answer.stdout.split()
    said = [line for line in answer.stderr.splitlines() if line.strip()]
    # srun says last that a task failed; the task's own words say why.
    said = sorted(said, key=lambda line: line.startswith("srun: ")) or ["failed"]
    if "end" not in seen:
        if any("allocat" in line for line in said):  # "Unable to allocate resources: ..."
            yield Check(
                name, "warn", f"no job could be tried: {said[-1]}", "launch would fail alike, or no node is free"
            )
        else:
            yield Check("task on a node", "fail", said[0], "mend launcher.container= or launcher.setup=")
        return
    if "python" in seen:
        yield Check("python on a node", "pass", sys.executable)
    else:
        advice = "compute nodes, and the container, must see this environment"
        yield Check("python on a node", "fail", f"{sys.executable}: not there, or cannot import repro", advice)
    if "scontrol" in seen:
        yield Check(name, "pass", "answers")
    else:
        yield Check(name, "warn", said[0], f"a job that times out cannot requeue itself: {ASK_AGAIN}")
    if "folder" in seen:
        yield Check("runs folder on a node", "pass", str(root))
    else:
        yield Check("runs folder on a node", "fail", f"{root}: not there, or read-only", "--runs on shared storage")
    for label, folder in data.items():
        if words[label] in seen:
            yield Check(f"{label} on a node", "pass", str(folder))
        else:
            advice = "data.root= a place that compute nodes see"
            yield Check(f"{label} on a node", "fail", f"{folder}: not there", advice)
