"""Scale mini: the published backbones on small images, the cost of a table on one GPU, and a training of DeiT-Tiny."""

from __future__ import annotations

from pathlib import Path

import pytest
from cifar_files import write_cifar
from report_records import view_of_results

from repro.cli.main import main
from repro.config.compose import compose
from repro.counting.geometry import ResNet, ViT
from repro.launch.cost_estimate import counted_throughput, estimates, known_throughput
from repro.launch.plan import plan
from repro.report.collect import collect_results
from repro.tables.loader import load_table
from repro.training.attempt import execute


@pytest.mark.parametrize("backbone", ["deit_tiny", "deit_small", "deit_base", "vit_base"])
def test_transformers_have_their_published_layers_on_65_tokens(backbone: str) -> None:
    config = compose(["scale=mini", f"backbone={backbone}", "data.root=images"])
    model, paper = config.model, config.backbone.paper
    assert isinstance(model, ViT)
    assert isinstance(paper, ViT)
    assert model.tokens == 65
    changed = {"image_size": 32, "patch_size": 4, "num_classes": 10}
    assert model == paper.model_copy(update=changed)
    folder = ["data=imagefolder", "model.image_size=64", "model.patch_size=8", "model.num_classes=200"]
    assert compose(["scale=mini", f"backbone={backbone}", "data.root=images", *folder]).model.tokens == 65
    assert (config.recipe.global_batch, config.recipe.epochs, config.recipe.peak_lr) == (128, 100, 0.001)


def test_resnet_has_its_published_blocks() -> None:
    config = compose(["scale=mini", "backbone=resnet50", "data.root=images"])
    assert isinstance(config.model, ResNet)
    assert (config.model.blocks, config.model.channels) == ((3, 4, 6, 3), (64, 128, 256, 512))
    assert config.model.dense_model().macs == 1_297_829_888  # 1.3 G, as is published for ResNet-50 on CIFAR


@pytest.mark.parametrize(("name", "limit_hours"), [("table1", 100), ("table2", 100), ("table3", 24)])
def test_a_table_with_three_seeds_takes_days_on_one_gpu(name: str, limit_hours: float, tmp_path: Path) -> None:
    table = load_table(name)
    rows = table.select([], "mini")
    assert {row.backbone for row in table.rows} - {row.backbone for row in rows} <= {
        "deit_base_384",
        "timesformer_base",
    }
    assert table.default_seeds("mini") == 3
    runs = plan(table, rows, "mini", range(3), tmp_path, ["data.root=unused"])
    costs = estimates(runs, known_throughput, None)
    assert all(cost.device_hours is not None for cost in costs)
    assert sum(cost.device_hours or 0 for cost in costs) < limit_hours
    assert all("20 % of its 312 TFLOPS (nvidia_a100; the share is assumed" in cost.known_from for cost in costs)


def test_counted_throughput_by_hand() -> None:
    """DeiT-Tiny on 65 tokens: 0.365 GMACs, six operations a MAC; 62.4 TFLOPS."""
    config = compose(["scale=mini", "backbone=deit_tiny", "data.root=images"])
    assert config.model.dense_model().macs == 365_107_584
    assert counted_throughput(config).images_per_s == pytest.approx(62.4e12 / (6 * 365_107_584))


def test_a_paper_size_model_trains_and_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three updates of DeiT-Tiny with masks."""
    write_cifar(tmp_path, "cifar10", monkeypatch)
    small = ["data.images_per_epoch=100", "data.limit_train=24", "recipe.global_batch=8", "recipe.micro_batch=8"]
    small += ["recipe.epochs=1", "recipe.warmup_epochs=0", "data.workers=0", "tracker=none", f"data.root={tmp_path}"]
    table = load_table("table1")
    rows = table.select(["deit_tiny/svite-30"], "mini")
    (run,) = plan(table, rows, "mini", [0], tmp_path / "runs", small)
    run.create()
    assert execute(run.record.path, log=lambda _: None) == 0
    result = run.record.result()
    assert result is not None
    assert (result["updates"], result["dataset"]) == (3, "cifar10")
    assert result["density"] == pytest.approx(0.7, abs=0.01)
    seen = view_of_results(collect_results(table, rows, "mini", [0], tmp_path / "runs", small))
    assert dict(seen.summary.ladder) == {"mini": 1}
    assert seen.summary.about.startswith("Scale mini: the published backbones, trained on cifar10 (not ImageNet).")
    assert {cell.verdict for cell in seen.results.cells if cell.metric.name == "top1_pct"} == {"other scale"}


def test_a_launch_shows_its_gpu_hours_and_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cifar-10-python.tar.gz").touch()  # read only by the runs
    words = ["launch", "table1", "deit_base/dense", "--scale", "mini", "--runs", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        main([*words, f"data.root={tmp_path}"])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "at least 2.24 GPU-hours" in shown.out
    assert "3 runs at scale mini on this machine (inline): use --yes to start them" in shown.err
    assert not (tmp_path / "runs").exists()
