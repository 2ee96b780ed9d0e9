"""The checks of `repro doctor` on a Slurm cluster: its configuration, and what a task on a compute node sees."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from repro.config import Config, Data, SlurmLauncher
from repro.data.layouts import find_data
from repro.errors import UserError
from repro.launch import slurm
from repro.launch.check import Check
from repro.locations import expand_home

RELAUNCH_PERIODICALLY = "run the launch again, for example from cron"
NODE_WAIT_S = 60
REQUEST_KEYS = ("account", "partition", "qos", "constraint", "reservation", "exclude", "gres", "gpus_per_node")
SCONTROL = "scontrol on compute nodes"


def slurm_checks(config: Config, root: Path, data: Mapping[str, Data]) -> Iterator[Check]:
    """Check Slurm for a config and yield the results.

    With launcher=slurm, a task on a node looks for the folders of `data`, which maps the names of checks to data sets.
    """
    launcher = config.launcher if isinstance(config.launcher, SlurmLauncher) else None
    if not slurm.is_available():
        advice = "needed for launcher=slurm only" if launcher is None else "use a login node, or launcher=local"
        yield Check("slurm", "warn" if launcher is None else "fail", "no sbatch", advice)
        return
    try:
        version = slurm.ask("sbatch", "--version").strip()
        configuration = slurm.configuration()
        slurm.queue()
    except UserError as error:
        advice = "the controller does not answer: try again later"
        yield Check("slurm", "warn" if launcher is None else "fail", str(error), advice)
        return
    yield Check("slurm", "pass", version)
    partition: dict[str, str] = {}
    if launcher is not None:
        try:
            partition = slurm.partition(launcher.partition)
        except UserError as error:
            advice = "sinfo lists them; set launcher.partition="
            yield Check("partition", "fail", f"{launcher.partition}: {error}", advice)
            return
        if launcher.partition is not None:
            yield Check("partition", "pass", launcher.partition)
    yield from _configuration_checks(configuration, partition, launcher)
    if launcher is None:
        yield Check(SCONTROL, "warn", "not tried", "repro doctor launcher=slurm submits a one-minute job to try it")
    else:
        folders = {name: folder for name, each in data.items() if (folder := _data_folder(each)) is not None}
        yield from _node_checks(launcher, folders, root)


def _configuration_checks(
    configuration: Mapping[str, str], partition: Mapping[str, str], launcher: SlurmLauncher | None
) -> Iterator[Check]:
    mode = partition.get("PreemptMode", configuration.get("PreemptMode", "OFF"))
    if "CANCEL" in mode:
        yield Check("PreemptMode", "warn", mode, f"preempted jobs are not requeued: {RELAUNCH_PERIODICALLY}")
    else:
        yield Check("PreemptMode", "pass", mode)
    yield _preempt_signal(mode, configuration.get("SlurmctldParameters", ""))
    if launcher is not None:
        by_qos = configuration.get("PreemptType", "").endswith("qos")
        yield _grace_time(mode, None if by_qos else partition.get("GraceTime"), launcher.signal_lead_s)
    yield _array_size(configuration.get("MaxArraySize", ""))
    storage = configuration.get("AccountingStorageType", "")
    if storage in ("", "(null)") or storage.endswith("none"):
        yield Check("accounting", "warn", "off", "nothing to do: records and squeue are enough")
    else:
        yield Check("accounting", "pass", storage)
    private = configuration.get("PrivateData", "none")
    if "jobs" in private.split(","):
        advice = (
            "users who share a runs folder would start each other's jobs twice: use separate folders, or ask the admin"
        )
        yield Check("PrivateData", "warn", private, advice)
    else:
        yield Check("PrivateData", "pass", f"{private}: users see each other's jobs")


def _preempt_signal(mode: str, parameters: str) -> Check:
    name = "preempt_send_user_signal"
    if name in parameters:
        return Check(name, "pass", "set")
    if mode == "OFF":
        return Check(name, "pass", "not needed: no job is preempted")
    return Check(name, "warn", "not set", "preempted jobs may get no signal: keep run.checkpoint_every_s small")


def _grace_time(mode: str, seconds: str | None, lead_s: int) -> Check:
    """Check the time that a preempted job has to save: `seconds` of the partition, or None if the QOS sets it."""
    if mode == "OFF":
        return Check("GraceTime", "pass", "not needed: no job is preempted")
    advice = (
        f"a preempted job has this time, not launcher.signal_lead_s={lead_s}, for its slowest update and a save; if it "
        "is too short, keep run.checkpoint_every_s small"
    )
    if seconds is None or not seconds.isdecimal():
        query = "sacctmgr show qos format=Name,GraceTime"
        return Check("GraceTime", "warn", seconds or "set by the QOS", f"{query}; {advice}")
    if int(seconds) < lead_s:
        return Check("GraceTime", "warn", f"{seconds} s", advice)
    return Check("GraceTime", "pass", f"{seconds} s")


def _array_size(size: str) -> Check:
    if not size.isdecimal():
        return Check("MaxArraySize", "warn", size or "unknown", "if sbatch refuses arrays, set launcher.array_size=")
    if int(size) < 2:
        advice = "each run is submitted as a job of its own, which is slower and fills the queue"
        return Check("MaxArraySize", "warn", f"{size}: no arrays", advice)
    return Check("MaxArraySize", "pass", f"{size}: arrays of at most {int(size) - 1}")


def _data_folder(data: Data) -> Path | None:
    """Return the data folder that compute nodes must see; None if runs need none."""
    try:
        is_needed = find_data(data) is not None
    except UserError:  # missing or incomplete here, but nodes may have it on their own disks
        is_needed = True
    return Path(expand_home(data.root)).absolute() if is_needed and data.root is not None else None


def _node_checks(launcher: SlurmLauncher, data: Mapping[str, Path], root: Path) -> Iterator[Check]:
    """Run a task on a node, with the setup lines and the container of a run, and yield what it found."""
    keys = {name: name.replace(" ", ":") for name in data}  # the task's output is split at spaces
    commands = {
        "scontrol": "scontrol ping >/dev/null",
        "python": f"{shlex.quote(sys.executable)} -c 'import repro'",
        "folder": f"test -w {shlex.quote(str(root.absolute()))}",
        **{keys[name]: f"test -r {shlex.quote(str(folder))}" for name, folder in data.items()},
    }
    try:
        answer = _run_on_node(launcher, commands)
    except subprocess.TimeoutExpired:
        yield Check(SCONTROL, "warn", "no node was free within a minute", "try again later")
        return
    passed = answer.stdout.split()
    # srun's own messages only say that the task failed, so the errors of the task come first.
    errors = sorted(filter(str.strip, answer.stderr.splitlines()), key=lambda line: line.startswith("srun: "))
    errors = errors or ["failed"]
    if "end" not in passed:
        if any("allocat" in line for line in errors):  # "Unable to allocate resources: ..."
            yield Check(
                SCONTROL, "warn", f"no job could run: {errors[-1]}", "a launch would fail too, or no node is free"
            )
        else:
            yield Check("task on a node", "fail", errors[0], "correct launcher.container= or launcher.setup=")
        return
    yield _passed(
        "python on a node",
        "python" in passed,
        sys.executable,
        "missing, or cannot import repro",
        "compute nodes, and the container, must see this environment",
    )
    if "scontrol" in passed:
        yield Check(SCONTROL, "pass", "answers")
    else:
        yield Check(SCONTROL, "warn", errors[0], f"a job that times out cannot requeue itself: {RELAUNCH_PERIODICALLY}")
    place, advice = str(root), "set --runs to a folder on shared storage"
    yield _passed("runs folder on a node", "folder" in passed, place, "missing, or read-only", advice)
    for name, folder in data.items():
        advice = "set data.root= to a folder that compute nodes see"
        yield _passed(f"{name} on a node", keys[name] in passed, str(folder), "missing", advice)


def _run_on_node(launcher: SlurmLauncher, commands: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run shell commands on a node. The task prints the key of each command that succeeds, then `end`."""
    srun = ["srun", "--immediate=30", "--time=1", "--ntasks=1", "--job-name=repro-doctor"]
    # Request the GPUs of a run, since a GPU partition may refuse jobs without GPUs.
    requests = {key: getattr(launcher, key) for key in REQUEST_KEYS}
    srun += [f"--{key.replace('_', '-')}={value}" for key, value in requests.items() if value]
    script = "; ".join(f"{command} && echo {key}" for key, command in commands.items())
    task = shlex.join([*launcher.container, "sh", "-c", f"{script}; echo end"])
    return subprocess.run(
        [*srun, "sh", "-c", "\n".join([*launcher.setup, task])],
        capture_output=True,
        text=True,
        timeout=NODE_WAIT_S,
        check=False,
        env=slurm.environment(),
    )


def _passed(name: str, is_passed: bool, found: str, problem: str, advice: str) -> Check:
    return Check(name, "pass", found) if is_passed else Check(name, "fail", f"{found}: {problem}", advice)
