"""`repro doctor` on clusters of different configurations; on a real one: tests/slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from repro.config.compose import compose
from repro.config.data_roots import every_data
from repro.errors import UserError
from repro.launch.check import Check
from repro.launch.doctor import examine
from repro.launch.slurm_checks import slurm_checks

PREEMPTED = "PartitionName=low Default=YES PreemptMode=REQUEUE GraceTime={}"


def examined(root: Path, *overrides: str) -> dict[str, Check]:
    config = compose(["scale=smoke", "launcher=slurm", *overrides])
    return {check.name: check for check in slurm_checks(config, root, {"data": config.data})}


@pytest.mark.parametrize(
    ("settings", "partition", "verdict", "found"),
    [
        ((), PREEMPTED.format(60), "warn", "60 s"),
        ((), PREEMPTED.format(180), "pass", "180 s"),
        ((), "PartitionName=low Default=YES PreemptMode=OFF GraceTime=0", "pass", "not needed: no job is preempted"),
        (("PreemptType = preempt/qos",), PREEMPTED.format(600), "warn", "set by the QOS"),
        # Without a partition of one's own it is the default one's.
        ((), f"PartitionName=a Default=NO PreemptMode=REQUEUE GraceTime=600\n{PREEMPTED.format(5)}", "warn", "5 s"),
    ],
)
def test_grace_time_is_that_of_the_partition(
    tmp_path: Path, cluster: FakeSlurm, settings: tuple[str, ...], partition: str, verdict: str, found: str
) -> None:
    cluster.has("MaxArraySize = 4", *settings, partition=partition)
    check = examined(tmp_path)["GraceTime"]
    assert (check.verdict, check.found) == (verdict, found)
    assert ("launcher.signal_lead_s=180" in check.advice) == (verdict == "warn")


@pytest.mark.parametrize(("size", "verdict"), [("0", "warn"), ("1", "warn"), ("2", "pass"), ("", "warn")])
def test_a_site_without_arrays_takes_single_jobs(tmp_path: Path, cluster: FakeSlurm, size: str, verdict: str) -> None:
    cluster.has(f"MaxArraySize = {size}")
    assert examined(tmp_path)["MaxArraySize"].verdict == verdict


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        (("launcher.gres=gpu:a100:8", "launcher.gpus_per_node=null"), ["--gres=gpu:a100:8"]),
        (("launcher.gpus_per_node=2", "launcher.tasks_per_node=2"), ["--gpus-per-node=2"]),
        (("launcher.gpus_per_node=0",), []),
    ],
)
def test_the_task_on_a_node_requests_the_gpus_of_a_run(
    tmp_path: Path, cluster: FakeSlurm, overrides: tuple[str, ...], asked: list[str]
) -> None:
    """A partition of GPU nodes may take no job without, and one without GPUs takes no run."""
    checks = examined(tmp_path, *overrides)
    (tried,) = cluster.tried
    assert [word for word in tried if word.startswith(("--gres", "--gpus"))] == asked
    assert checks["python on a node"].verdict == "pass"


def test_generated_data_need_no_folder_on_nodes(tmp_path: Path, cluster: FakeSlurm) -> None:
    """Shapes are drawn where they are needed: their folder may not have been written yet."""
    drawn = ("data=shapes", "model.image_size=24", "model.patch_size=4", "model.in_chans=3", "model.num_classes=8")
    checks = examined(tmp_path, *drawn, f"data.root={tmp_path}/later")
    assert "data on a node" not in checks
    assert "later" not in " ".join(cluster.tried[0])
    folder = tmp_path / "on nodes only"  # a disk of their own: not to be seen from here
    checks = examined(tmp_path, "data=imagefolder", "model.num_classes=3", "model.in_chans=3", f"data.root='{folder}'")
    assert checks["data on a node"].verdict == "pass"


def test_each_of_several_data_sets_is_checked(tmp_path: Path, cluster: FakeSlurm) -> None:
    """One that exists, one that does not, and one without a folder."""
    for split in ("train", "val"):
        (tmp_path / "images" / split / "n01440764").mkdir(parents=True)
    roots = f"{{imagenet: {tmp_path}/images, kinetics400: {tmp_path}/videos, imagefolder: null, shapes: null}}"
    words = ["scale=paper", "launcher=slurm", f"data.root={roots}", "tracker=none"]
    config = compose(words)
    found = {each.name: each for each in examine(config, tmp_path, data=every_data(config, words))}
    data = {name: (each.verdict, each.found) for name, each in found.items() if name.startswith("data")}
    videos = f"{tmp_path}/videos"
    assert data == {
        "data": ("pass", f"{tmp_path}/images"),
        "data kinetics400": (
            "fail",
            f"data.root={videos}: no such folder; expected one that holds train/ and val/",
        ),
        "data imagefolder": (
            "fail",
            "data.root=null: data=imagefolder needs the folder that holds train/ and val/; set data.root",
        ),
        "data shapes": ("pass", "data=shapes needs no folder"),
        # The fake node always answers that it has found `data`.
        "data on a node": ("pass", f"{tmp_path}/images"),
        "data kinetics400 on a node": ("fail", f"{videos}: missing"),
    }
    assert f"test -r {tmp_path}/images" in " ".join(cluster.tried[0])
    assert f"test -r {videos}" in " ".join(cluster.tried[0])
    assert all(each.advice for each in found.values() if each.verdict == "fail")


def test_a_missing_folder_is_refused_before_anything_starts() -> None:
    """Each job would find out for itself, days later."""
    for root in ("null", "{imagenet: null}"):
        with pytest.raises(UserError, match=r"data\.root"):
            compose(["scale=paper", f"data.root={root}"])


@pytest.mark.parametrize(("setting", "verdict"), [("none", "pass"), ("jobs,usage", "warn"), ("accounts", "pass")])
def test_private_jobs_are_noted(tmp_path: Path, cluster: FakeSlurm, setting: str, verdict: str) -> None:
    cluster.has("MaxArraySize = 4", f"PrivateData = {setting}")
    check = examined(tmp_path)["PrivateData"]
    assert (check.verdict, bool(check.advice)) == (verdict, verdict == "warn")
