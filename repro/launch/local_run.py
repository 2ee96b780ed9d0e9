"""Runs on this machine. Each rank is a process, forked from a server that has already imported torch.

A crash, a memory leak or an out-of-memory kill is thus confined to one run, and a run of ten seconds does not spend
five of them on imports.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import psutil

from repro.config import Config, InlineLauncher, LocalLauncher
from repro.data.data_sets import DATA_SETS
from repro.errors import UserError
from repro.interruption import signals_blocked
from repro.launch.gpus import VISIBLE_DEVICES, gpus_per_run
from repro.launch.local_pool import parallelism
from repro.launch.plan import PlannedRun
from repro.launch.rendezvous import rank_environment
from repro.runs.permissions import adopt_group_umask
from repro.runs.record import Record
from repro.runs.status import EXIT_STOPPED, Status
from repro.tracking.login import is_disabled

# The fork server imports this module first, so that this is its environment before other imports set variables.
_STARTED_WITH = dict(os.environ)
_FOR_TRAINING = ("repro.launch.local_run", "repro.training.attempt", "timm.models.vision_transformer")
# The W&B client imports the last two when a run starts.
_FOR_MIRROR = ("repro.tracking.wandb_mirror", "wandb.apis.public", "requests")
FAILED_RANK_GRACE_S = 30.0  # time for the other ranks to record their errors, like Slurm's default KillWait


class LocalLaunch:
    """Starts runs on this machine, and gives each run of a local launcher its own GPUs.

    Runs of an inline launcher see the same GPUs as this process. Raises `UserError` if the machine has too few GPUs, or
    if a setup line fails.
    """

    def __init__(self, launcher: InlineLauncher | LocalLauncher, cpu_threads: int) -> None:
        self.ranks = launcher.ranks
        self.parallel = parallelism(launcher.parallel, cpu_threads)
        # The values of CUDA_VISIBLE_DEVICES that no run has; None if runs inherit the variable.
        self._free: list[str] | None = None
        if isinstance(launcher, LocalLauncher):
            _run_setup(launcher.setup)
            self._free = gpus_per_run(launcher, self.parallel)
            self.parallel = len(self._free)

    def start(self, run: PlannedRun) -> LocalRun:
        """Start one run. The caller keeps at most `parallel` running."""
        if self._free is None:
            return LocalRun(run.record, run.config, self.ranks)
        free, gpus = self._free, self._free.pop(0)
        return LocalRun(run.record, run.config, self.ranks, {VISIBLE_DEVICES: gpus}, lambda: free.append(gpus))


def _run_setup(lines: Sequence[str]) -> None:
    """Run shell lines in bash, and copy the environment that they leave (`module load cuda`) into this process."""
    if not lines:
        return
    with tempfile.TemporaryDirectory() as folder:
        variables, errors = Path(folder) / "environment", Path(folder) / "stderr"
        script = "\n".join([*lines, 'env -0 > "$0"'])
        with errors.open("w") as stderr:  # not a pipe: a daemon that a line starts would keep it open
            code = subprocess.call(["bash", "-e", "-c", script, str(variables)], stderr=stderr)
        if code:
            reason = (errors.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"])[-1]
            raise UserError(f"launcher.setup: {reason}")
        entries = variables.read_text(errors="surrogateescape").split("\0")
    for entry in entries:
        name, separator, value = entry.partition("=")
        if separator:
            os.environ[name] = value


class LocalRun:
    """The processes of one run, one for each rank. Creating it claims an attempt and starts them."""

    def __init__(
        self,
        record: Record,
        config: Config,
        ranks: int = 1,
        environment: Mapping[str, str] | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._record, self._on_end = record, on_end
        self._is_stopping = False
        self._failed_at: float | None = None
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(preloads(config))
        resource_tracker.ensure_running()  # starting the tracker unblocks signals, so it has to come first
        with signals_blocked():  # the fork server and all processes that it forks inherit the mask
            forkserver.ensure_running()
        attempt = None if record.result() is not None else record.claim_attempt()
        port = _free_port() if ranks > 1 else 0
        self._ranks = []
        for rank in range(ranks):
            variables = rank_environment(rank, rank, ranks, 1, "127.0.0.1", port) if ranks > 1 else {}
            own = {**(environment or {}), **variables}
            # Otherwise, a rank would have the environment in which the fork server was started.
            process = context.Process(target=run_rank, args=(record.path, attempt, own, dict(os.environ)), daemon=False)
            process.start()
            self._ranks.append(process)

    def has_ended(self) -> bool:
        """Return whether all ranks have exited; if they have, record an exit that they could not record themselves."""
        codes = [process.exitcode for process in self._ranks]
        if None in codes:
            if any(code not in (None, 0, EXIT_STOPPED) for code in codes):
                self._kill_if_overdue()
            return False
        for process in self._ranks:
            process.join()
        self._on_end()
        record_exit(self._record, next((code for code in codes if code), 0), self._is_stopping)
        return True

    def stop(self) -> None:
        """Ask the ranks to save and stop, once. For a rank that is still starting, the signal stays pending."""
        if not self._is_stopping:
            self._is_stopping = True
            for process in self._ranks:
                process.terminate()

    def kill(self) -> None:
        """Kill the ranks and their loader workers, which would otherwise keep the run's lock."""
        self._is_stopping = True
        self._kill_ranks()

    def _kill_if_overdue(self) -> None:
        """Kill the remaining ranks if one has failed and the others do not exit in time: they hang in a collective."""
        self._failed_at = self._failed_at or time.monotonic()
        if time.monotonic() - self._failed_at > FAILED_RANK_GRACE_S:
            self._kill_ranks()

    def _kill_ranks(self) -> None:
        for process in self._ranks:
            if process.pid is not None and process.is_alive():
                _kill_tree(process.pid)


def preloads(config: Config) -> list[str]:
    """Return the modules that the fork server imports once for all runs. None may start a thread, which forks lack."""
    mirror = () if is_disabled(config) else _FOR_MIRROR
    return [*_FOR_TRAINING, DATA_SETS[config.data.name].module, *mirror]


def environment_of_rank(
    server: Mapping[str, str], started_with: Mapping[str, str], inherited: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a rank: that of its launch, with variables of its own.

    Of the fork server's environment, it has only what imports have set there since its start, such as scikit-learn's
    settings for OpenMP: the launch may have changed or removed other variables since.
    """
    set_by_imports = {name: value for name, value in server.items() if name not in started_with}
    return {**set_by_imports, **inherited, **own}


def run_rank(path: Path, attempt: int | None, own: Mapping[str, str], inherited: Mapping[str, str]) -> None:
    """Execute one rank of an attempt in this process, with its output redirected to the attempt's folder.

    Its environment is that of `environment_of_rank`.
    """
    environment = environment_of_rank(os.environ, _STARTED_WITH, inherited, own)
    os.environ.clear()
    os.environ.update(environment)
    try:
        from repro.training.attempt import execute

        adopt_group_umask(path)
        if attempt is not None:
            redirect_output(Record(path).attempt_dir(attempt), int(own.get("RANK", "0")))
        if own:
            print(" ".join(f"{name}={value}" for name, value in own.items()), flush=True)
        sys.exit(execute(path, attempt))
    except KeyboardInterrupt:  # the second Ctrl-C
        sys.exit(EXIT_STOPPED)


def redirect_output(folder: Path, rank: int = 0) -> None:
    """Redirect the output of this process to `stdout` and `stderr` in `folder` (`stdout-rank1` for rank 1)."""
    suffix = f"-rank{rank}" if rank else ""
    for name, number in (("stdout", 1), ("stderr", 2)):
        file = os.open(folder / f"{name}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the encoding was that of the terminal
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def record_exit(record: Record, code: int, was_asked: bool = False) -> None:
    """Record how a run's processes ended, if they could not do so themselves.

    A run that a signal killed can be launched again; so can a run that this launch asked to stop (`was_asked`),
    whatever its exit code. If another launch or attempt has taken over the run, its status stays unchanged.
    """
    status = record.status()
    if code == 0 or record.result() is not None or record.is_locked or _belongs_to_another(status):
        return
    if (was_asked or code == EXIT_STOPPED) and status.state == "submitted":  # stopped before it had started
        record.set_status(status.withdrawn())
    elif was_asked and status.state == "running":
        reason = "killed before it had saved; resumes from its last checkpoint"
        record.set_status(status.moved("requeued", reason=reason))
    elif code < 0 and status.state in ("running", "submitted"):
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        record.set_status(status.moved("requeued", reason=f"killed by {signal.Signals(-code).name}{hint}"))
    elif status.state in ("running", "submitted"):  # it could not write its status, for example to a full disk
        record.set_status(status.moved("failed", reason=f"exit code {code}; see its stderr"))


def _belongs_to_another(status: Status) -> bool:
    """Return whether the status names another machine, or another process that is alive."""
    if status.host not in (None, platform.node()):
        return True
    return status.pid not in (None, os.getpid()) and _is_alive(status.pid)


def _is_alive(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _free_port() -> int:
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        port: int = unbound.getsockname()[1]
        return port
