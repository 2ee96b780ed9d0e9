"""A real Slurm on private ports and folders, from Debian's packages: slurm-wlm, munge (and slurmdbd).

One node for everything; a second slurmd on the same machine, in a partition with the first, for jobs of two nodes.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
ACCOUNTING = ("slurmdbd", "mariadbd", "mysql_install_db", "sacct", "sacctmgr")
MAX_ARRAY_SIZE = 4

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
MaxArraySize={max_array_size}
KillWait=20
OverTimeLimit=1
SlurmdTimeout=10
SlurmdParameters=config_overrides
InactiveLimit=0
MinJobAge=300
{accounting}
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=1000 State=UNKNOWN
NodeName={second} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[4]} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=pair Nodes={host},{second} MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF
"""

DBD = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


def missing(accounting: bool = False) -> list[str]:
    """Programs that this machine lacks; ["root"] if this user is not root, as slurmd must be."""
    names = (*NEEDED, *ACCOUNTING) if accounting else NEEDED
    lacking = [name for name in names if _program(name) is None]
    return lacking or ([] if os.getuid() == 0 else ["root"])


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class OneNode:
    """The daemons, and what tests do to them."""

    def __init__(self, folder: Path, accounting: bool) -> None:
        self.folder, self.accounting = folder, accounting
        self.host = socket.gethostname().split(".")[0]
        self.second = f"{self.host}-second"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.released: set[tuple[str, str | None]] = set()
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "USER": "root"}

    def start(self) -> None:
        """Bring everything up; about five seconds, ten with accounting."""
        for name in ("state", f"spool-{self.host}", f"spool-{self.second}"):
            (self.folder / name).mkdir(parents=True)
        ports = _free_ports(5)
        self._start_munge()
        lines = "AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none"
        if self.accounting:
            self._start_accounting(ports[2], ports[3])
            lines = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePass={self.folder}/munge.socket\n"
                f"AccountingStoragePort={ports[2]}\nJobAcctGatherType=jobacct_gather/none"
            )
        conf = CONF.format(
            host=self.host,
            second=self.second,
            folder=self.folder,
            ports=ports,
            accounting=lines,
            max_array_size=MAX_ARRAY_SIZE,
        )
        (self.folder / "slurm.conf").write_text(conf)
        if self.accounting:
            self.wait(lambda: self.run("sacctmgr", "-i", "add", "cluster", "tests", check=False).returncode == 0, 30)
            self.run("sacctmgr", "-i", "add", "account", "tests", check=False)
            self.run("sacctmgr", "-i", "add", "user", "root", "account=tests", check=False)
        self.start_daemon("slurmctld")
        self.start_daemon("slurmd")
        self.start_daemon("slurmd-second")
        self.wait(lambda: set(self.run("sinfo", "-h", "-o", "%T", check=False).stdout.split()) == {"idle"}, 40)

    def start_daemon(self, name: str) -> None:
        """Start slurmctld, slurmd or slurmd-second in the foreground, as a child."""
        words = {"slurmctld": [], "slurmd": ["-N", self.host], "slurmd-second": ["-N", self.second]}[name]
        program = name.removesuffix("-second")
        self._spawn(name, [_program(program) or program, "-D", *words, "-f", str(self.folder / "slurm.conf")])

    def kill(self, name: str) -> None:
        """SIGKILL a daemon, as a node's failure does."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def step_daemons(self) -> list[int]:
        """The processes that watch over the tasks of jobs: of this Slurm, for there may be others on the machine."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "slurmstepd" and process.cwd() == str(self.folder):
                    found.append(process.pid)
        return found

    def stop(self) -> None:
        """End everything that was started, the jobs first."""
        if "slurmctld" in self.processes:
            self.run("scancel", "--user=root", check=False)
            self.wait(lambda: not self.run("squeue", "-h", check=False).stdout.strip(), 40, must=False)
        for process in reversed(list(self.processes.values())):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command with this Slurm as its cluster."""
        return subprocess.run(
            command, capture_output=True, text=True, env=self.environment, check=check, timeout=120, cwd=self.folder
        )

    def job(self, job_id: str) -> dict[str, str]:
        """What scontrol knows of a job."""
        text = self.run("scontrol", "-o", "show", "job", job_id, check=False).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", text.splitlines()[0] if text else ""))

    def release(self) -> None:
        """Requeued jobs are held for two minutes; let each start in three seconds.

        Not at once: within the second in which it was killed its credential is revoked, and Slurm ends it for good.
        """
        for line in self.run("squeue", "-h", "-r", "-t", "PD", "-o", "%A %r", check=False).stdout.splitlines():
            job_id, reason = line.split(" ", 1)
            if reason == "BeginTime" and (again := (job_id, self.job(job_id).get("Restarts"))) not in self.released:
                self.released.add(again)
                self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+3", check=False)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 60, must: bool = True) -> None:
        """Until something is so. Fails with the end of the controller's log."""
        until = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > until or (must and any(each.poll() is not None for each in self.processes.values())):
                assert not must, self._logs()
                return
            time.sleep(0.25)

    def _logs(self) -> str:
        queue = self.run("squeue", "-a", check=False)
        parts = [queue.stdout, queue.stderr]
        for name in ("slurmctld.log", f"slurmd-{self.host}.log", f"slurmd-{self.second}.log", "slurmdbd.log"):
            file = self.folder / name
            if file.exists():
                parts.append(f"{name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-25:]))
        return "\n".join(parts)

    def _spawn(self, name: str, command: list[str]) -> None:
        if shutil.which("setpriv"):  # gone with the tests, even where those are killed
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, start_new_session=True, cwd=self.folder
            )

    def _start_munge(self) -> None:
        """With a key, socket and files of our own, all root's: the machine's own munge is left alone."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        place = self.folder / "munge"
        place.mkdir(mode=0o755)
        command = [_program("munged") or "munged", "--foreground", "--force", f"--key-file={key}"]
        command += [f"--socket={self.folder}/munge.socket", f"--pid-file={place}/munged.pid"]
        command += [f"--log-file={place}/munged.log", f"--seed-file={place}/munged.seed"]
        self._spawn("munged", command)
        self.wait(lambda: (self.folder / "munge.socket").exists(), 20)

    def _start_accounting(self, dbd_port: int, sql_port: int) -> None:
        user = "mysql" if "mysql" in {entry.pw_name for entry in pwd.getpwall()} else "root"
        data = self.folder / "sql"
        data.mkdir()
        shutil.chown(data, user, user if user in {entry.gr_name for entry in grp.getgrall()} else None)
        init = _program("mysql_install_db") or "mysql_install_db"
        subprocess.run(
            [init, "--no-defaults", f"--datadir={data}", f"--user={user}", "--auth-root-authentication-method=socket"],
            check=True,
            capture_output=True,
            timeout=120,
        )
        start = data / "start.sql"
        start.write_text(
            "CREATE DATABASE IF NOT EXISTS slurm_acct;\n"
            "CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';\n"
            "CREATE USER IF NOT EXISTS 'slurm'@'localhost' IDENTIFIED BY 'slurm';\n"
            "GRANT ALL ON slurm_acct.* TO 'slurm'@'127.0.0.1';\nGRANT ALL ON slurm_acct.* TO 'slurm'@'localhost';\n"
        )
        shutil.chown(start, user)
        command = [_program("mariadbd") or "mariadbd", "--no-defaults", f"--datadir={data}", f"--user={user}"]
        command += [f"--port={sql_port}", "--bind-address=127.0.0.1", f"--socket={data}/sql.socket"]
        command += [f"--pid-file={data}/sql.pid", f"--init-file={start}", "--innodb-buffer-pool-size=64M"]
        self._spawn("mariadbd", command)
        self.wait(lambda: _answers(sql_port), 60)
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(DBD.format(host=self.host, folder=self.folder, port=dbd_port, sql_port=sql_port))
        conf.chmod(0o600)
        self._spawn("slurmdbd", [_program("slurmdbd") or "slurmdbd", "-D"])
        self.wait(lambda: _answers(dbd_port), 60)


def _answers(port: int) -> bool:
    with socket.socket() as each:
        each.settimeout(1)
        return each.connect_ex(("127.0.0.1", port)) == 0
