"""A full /dev/shm is one line that names it, in a training and in an evaluation."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from repro.config.compose import compose
from repro.data.shared_memory import check_shared_memory, needed_bytes
from repro.launch.doctor import shared_memory_check

SCRIPT = """
import sys, torch
from repro.data.in_memory import ImagesInMemory
from repro.data.loader import TrainLoader, evaluation_batches
from repro.errors import UserError

size = int(sys.argv[2])
images = ImagesInMemory(torch.zeros(64, 3, size, size), torch.zeros(64, dtype=torch.int64))
if sys.argv[1] == "train":
    loader = TrainLoader(images, global_batch=16, micro_batch=16, seed=0, repeats=1, workers=2)
    batches = loader.batches(0)
else:
    batches = evaluation_batches(images, 16, 2)
try:
    print(sum(len(labels) for _, labels in batches))
except UserError as error:
    print(error)
"""


def with_shared_memory(mib: int, *arguments: object) -> str:
    """Run the script with a /dev/shm of `mib` MiB, in a mount namespace of its own."""
    mount = f"mount -t tmpfs -o size={mib}m tmpfs /dev/shm"
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", SCRIPT]
    probe = ["unshare", "-m", "sh", "-c", mount]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a /dev/shm of its own (root)")
    answer = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=120)
    return answer.stdout.strip()


@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_a_full_shared_memory_is_one_line(what: str) -> None:
    lines = with_shared_memory(2, what, 128).splitlines()  # a batch is 3 MiB
    assert lines == [
        "/dev/shm is full (2 MiB): data workers pass batches through it; start the container with --shm-size or "
        "--ipc=host, or set data.workers=0 (repro eval: --workers 0)"
    ]


def test_batches_that_fit_pass() -> None:
    assert with_shared_memory(7, "train", 32) == "64"


def test_needed_shared_memory_by_hand() -> None:
    words = ["scale=paper", "backbone=deit_small", "data.root=/data", "data.workers=4"]
    words += ["recipe.micro_batch=128", "recipe.eval_batch=200"]
    values = 3 * 224 * 224
    fast, pil = (compose([*words, f"data.decoder={decoder}"]) for decoder in ("fast", "pil"))
    # Two batches for each worker: uint8 with a quarter more for erased boxes, or float32; evaluation is float32.
    assert needed_bytes(fast, ranks=1) == 4 * 2 * (160 + 800) * values
    assert needed_bytes(pil, ranks=3) == 3 * 4 * 2 * (512 + 800) * values


def test_doctor_compares_the_free_space_with_what_the_config_needs() -> None:
    words = ["scale=paper", "backbone=deit_small", "data.root=/data"]
    assert shared_memory_check(compose([*words, "data.workers=0"])).found == "not needed: data.workers=0"
    enough = shared_memory_check(compose([*words, "data.workers=1", "recipe.micro_batch=2", "recipe.eval_batch=1"]))
    assert enough.verdict == "pass"
    large = compose([*words, "data.workers=1000", "recipe.eval_batch=1000"])
    check = shared_memory_check(large)
    assert (check.verdict, check.found) == ("fail", check_shared_memory(large, ranks=1)[1])
    assert "--shm-size" in check.advice
    several = compose([*words, "data.workers=1000", "recipe.eval_batch=1000", "launcher.parallel=8"])
    assert shared_memory_check(several).found == check_shared_memory(large, ranks=8)[1]
