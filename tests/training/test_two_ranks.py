"""Two processes, gloo: every method chooses the same on both ranks, after every update, with accumulation."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import METHODS, ON_RESNET, ON_TOKENS, ON_VIDEO, Kept, Weights, trainer, video_config

from repro.data.data_sets import DATA_SETS
from repro.models.backbone import build_model

HAS_VIDEO = all(importlib.util.find_spec(name) for name in ("av", "transformers"))
SCRIPT = Path(__file__).with_name("two_ranks.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """An empty folder for moving shapes; None without what writes them."""
    return tmp_path_factory.mktemp("videos") if HAS_VIDEO else None


@pytest.fixture(scope="module")
def ranks(
    dense: Weights, dense_resnet: Weights, videos: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, list[Any]]]:
    """What both ranks saw: all methods in one pair of processes, because starting one takes longer than training."""
    folder = tmp_path_factory.mktemp("two ranks")
    torch.save(dense, folder / "dense.pt")
    torch.save(dense_resnet, folder / "dense_resnet.pt")
    if videos is not None:
        (folder / "videos").symlink_to(videos)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    started = []
    for rank in range(2):
        log = (folder / f"log{rank}").open("w")
        started.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(folder)],
                env={**os.environ, **world, "RANK": str(rank), "PYTHONPATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()
    try:
        codes = [process.wait(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0, 0], "\n".join((folder / f"log{rank}").read_text()[-3000:] for rank in range(2))
    return [json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.mark.parametrize("name", [*METHODS, *ON_TOKENS, *ON_RESNET])
def test_both_ranks_choose_the_same_after_every_update(name: str, ranks: list[dict[str, list[Any]]]) -> None:
    first, second = (rank[name] for rank in ranks)
    updates = 4 if name.split()[-1] in ("omp", "tp", "ssp") else 8  # fine-tuning is half as long
    assert [entry[0] for entry in first] == [*range(updates + 1), "accuracy", "entries"]
    assert first[:-1] == second[:-1]
    if name in ("svite", "s2vite", "gmp"):
        assert len({entry[1] for entry in first[:9]}) >= 6, "masks moved"


@pytest.mark.parametrize("name", ["svite", "s2vite", "ia_red2"])
def test_checkpointed_ranks_train_as_others_do(name: str, ranks: list[dict[str, list[Any]]]) -> None:
    """Bit for bit, after every update, with gradients averaged over ranks."""
    for rank in ranks:
        assert rank[f"{name}, checkpointed"] == rank[name]


@pytest.mark.skipif(not HAS_VIDEO, reason="no extra `video`")
@pytest.mark.parametrize("name", list(ON_VIDEO))
def test_two_ranks_learn_from_videos_what_one_process_learns(
    name: str, ranks: list[dict[str, Any]], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (rank[f"video {name}"] for rank in ranks)
    assert first == second
    monkeypatch.setitem(DATA_SETS, "shapes_video", replace(DATA_SETS["shapes_video"], images=(32, 16)))
    config = video_config(videos, *ON_VIDEO[name])
    weights = build_model(config.model, 0.0, 7).state_dict() if config.method.starts_from else None
    alone = trainer(config, tmp_path, weights, Kept())
    assert alone.run()["loss_last"] == pytest.approx(first["loss"], rel=1e-3)
    if name == "dense":  # nothing is drawn that depends on the rank
        for key, value in alone.state.model.state_dict().items():
            torch.testing.assert_close(torch.tensor(first["weights"][key]), value, rtol=1e-3, atol=1e-4)


def test_batch_norms_have_the_mean_of_what_both_ranks_saw(ranks: list[dict[str, list[Any]]]) -> None:
    averaged = [[1.5, 1.5], [4.5, 4.5]]
    assert ranks[0]["batch norms"] == ranks[1]["batch norms"] == [averaged, averaged]
