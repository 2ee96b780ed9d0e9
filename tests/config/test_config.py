"""Composition, validation and signature of a run's config."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import yaml

from repro.config import GENERATED, Config
from repro.config.compose import compose
from repro.config.groups import compose_groups, compose_with_hydra, own_section
from repro.config.schedule import mask_schedule, training_length
from repro.config.signature import NOT_IN_SIGNATURE, can_change_a_result, signature
from repro.counting.schedule import UpdateSchedule
from repro.errors import UserError
from repro.locations import CONF_DIR, TABLES_DIR, config_dirs, groups
from repro.runs.record import record_for
from repro.tables.loader import load_table, table_names

PAPER = ["scale=paper", "data.root=somewhere"]


def schedule_of(config: Config, images_per_epoch: int) -> UpdateSchedule:
    schedule = mask_schedule(config, training_length(config, images_per_epoch))
    assert schedule is not None
    return schedule


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in groups() for option in groups()[group]])
def test_every_option_of_every_group_composes(group: str, option: str) -> None:
    root = ["data.root=somewhere"] if group in ("data", "scale") else []
    # The one backbone for which somebody has published, or we have chosen, what each method asks of it.
    backbone = ["backbone=vit_base"] if group == "method" else []
    config = compose([f"{group}={option}", *backbone, *root])
    assert config.signature


def test_every_config_file_says_what_it_is_and_how_to_run_it() -> None:
    for path in CONF_DIR.glob("*/*.yaml"):
        head = path.read_text().split("\n\n")[0]
        assert head.startswith("#"), path
        assert "repro " in head or "make " in head, f"{path}: the header does not say how to run it"


def test_paper_configs_are_those_of_the_papers_training_table() -> None:
    with (TABLES_DIR / "table1" / "training.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    assert [record["backbone"] for record in records] == ["deit_tiny", "deit_small", "deit_base"]
    for record in records:
        config = compose([*PAPER, f"backbone={record['backbone']}", "method=svite"])
        assert config.recipe.epochs == int(record["epochs"])
        assert config.recipe.global_batch == int(record["global_batch"])
        assert config.method.weights is not None
        options = config.method.weights.options
        length = training_length(config, 1281167)
        schedule = schedule_of(config, 1281167)
        assert schedule.interval == int(record["update_interval_iterations"])
        assert schedule.end == int(record["update_end_iterations"])
        assert options["update_fraction"] == float(record["update_fraction"])
        assert schedule.end / length.updates == pytest.approx(0.8, abs=0.001)


def test_paper_recipe() -> None:
    recipe = compose([*PAPER, "backbone=deit_base"]).recipe
    assert recipe.peak_lr == pytest.approx(5e-4 * 1024 / 512)
    assert (recipe.warmup_epochs, recipe.warmup_lr, recipe.min_lr) == (5, 1e-6, 1e-5)
    assert (recipe.mixup, recipe.cutmix, recipe.mixup_switch_prob) == (0.8, 1.0, 0.5)
    assert (recipe.rand_augment, recipe.random_erasing) == ("rand-m9-mstd0.5-inc1", 0.25)
    assert (recipe.ema_decay, recipe.drop_path, recipe.repeated_augmentation) == (0.99996, 0.1, 3)


def test_the_recipes_of_table_2_are_those_of_its_training_table() -> None:
    with (TABLES_DIR / "table2" / "training.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    assert [record["backbone"] for record in records] == ["resnet50", "vit_base"]
    for record in records:
        config = compose([*PAPER, f"backbone={record['backbone']}", "method=spartan"])
        recipe = config.recipe
        found = {
            "optimizer": recipe.optimizer,
            "momentum": recipe.momentum,
            "lr": recipe.peak_lr,
            "global_batch": recipe.global_batch,
            "weight_decay": recipe.weight_decay,
            "clip_grad_norm": recipe.clip_grad_norm,
            "epochs": recipe.epochs,
            "warmup_epochs": recipe.warmup_epochs,
            "label_smoothing": recipe.label_smoothing,
            "mixup": recipe.mixup,
            "cutmix": recipe.cutmix,
        }
        said = {key: None if record[key] == "" else record[key] for key in found}
        assert {k: v if k == "optimizer" or v is None else float(v) for k, v in said.items()} == found
        assert config.method.weights is not None
        assert config.method.weights.options["beta_max"] == float(record["beta_max"])
        assert (recipe.ema_decay, recipe.drop_path, recipe.random_erasing, recipe.color_jitter) == (None, 0, 0, 0)
        assert bool(recipe.rand_augment) == ("RandAugment" in record["note"])
        assert (recipe.min_lr, recipe.schedule_by, recipe.repeated_augmentation) == (0, "update", 1)


@pytest.mark.parametrize("scale", ["paper", "mini", "local", "smoke"])
@pytest.mark.parametrize(
    ("backbone", "recipe"),
    [("deit_tiny", "deit"), ("deit_base", "deit"), ("resnet50", "resnet50"), ("vit_base", "vit_base")],
)
def test_the_recipe_follows_from_backbone_and_scale(backbone: str, recipe: str, scale: str) -> None:
    config = compose([f"scale={scale}", f"backbone={backbone}", "data.root=somewhere"])
    assert config.recipe.name == f"{recipe}_{scale}"
    assert config.model == getattr(config.backbone, "local" if scale == "smoke" else scale)
    chosen = compose([f"scale={scale}", f"backbone={backbone}", "data.root=somewhere", "recipe=deit_local"])
    assert chosen.recipe.name == "deit_local", "unless one is named"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recipe.momentum=null"], "recipe.momentum=None: recipe.optimizer=nesterov needs one"),
        (["recipe.optimizer=adamw"], "recipe.momentum=0.9: recipe.optimizer=adamw takes none, set null"),
        (["recipe.optimizer=adamv"], "recipe.optimizer=adamv: timm has no such optimizer; nearest: adam"),
    ],
)
def test_an_optimizer_that_does_not_go_with_the_recipe_is_named(overrides: list[str], message: str) -> None:
    from torch import nn

    from repro.counting.schedule import Length
    from repro.training.recipe import build_optimization

    recipe = compose(["backbone=resnet50", *overrides]).recipe
    with pytest.raises(UserError, match=message):
        build_optimization(nn.Linear(1, 1), recipe, 2, Length(1, 1, 1), 1.0)


def test_another_global_batch_keeps_the_schedule_in_images() -> None:
    config = compose([*PAPER, "method=svite", "recipe.global_batch=2048"])
    schedule = schedule_of(config, 1281167)
    assert (schedule.interval, schedule.end) == (3750, 300000)
    assert config.recipe.peak_lr == pytest.approx(5e-4 * 4)


@pytest.mark.parametrize("backbone", ["deit_tiny", "deit_small", "deit_base"])
def test_local_schedule_keeps_its_shape(backbone: str) -> None:
    paper = compose([*PAPER, f"backbone={backbone}", "method=svite"])
    local = compose([f"backbone={backbone}", "method=svite"])
    full, short = schedule_of(paper, 1281167), schedule_of(local, 1437)
    assert short.end / short.total == pytest.approx(full.end / full.total, abs=0.01)
    # Intervals are whole updates: the number of mask updates can only be near.
    assert short.interval == max(1, round(full.interval * short.total / full.total))


EVERY_ROW = [row for table in table_names() for row in load_table(table).select(["published", "ablations"])]


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: row.id)
def test_every_row_composes_to_itself(row) -> None:  # type: ignore[no-untyped-def]
    config = compose(row.overrides)
    assert config.method.is_trainable
    assert config.backbone.name == row.backbone
    assert config.method.name == row.method
    assert config.method.sparsity == pytest.approx(row.arch_sparsity_pct / 100)
    assert config.method.data_sparsity == pytest.approx(row.data_sparsity_pct / 100)


def test_all_errors_at_once_with_the_nearest_names() -> None:
    wrong = [
        "backbone=deit_smal", "method=svite", "method.sparsty=0.5", "method.weights.growth=gradent",
        "recipe.epochs=-1", "method.sparsity=1.0", "nonsense",
    ]  # fmt: skip
    with pytest.raises(UserError) as caught:
        compose(wrong)
    text = str(caught.value)
    assert text.startswith("config: 6 errors\n")
    for part in (
        "no backbone 'deit_smal'; nearest: deit_small", "method.sparsty: no such key; nearest: method.sparsity",
        "method.weights.growth=gradent: not known; nearest: gradient", "recipe.epochs=-1: input should be greater",
        "method.sparsity=1.0: input should be less than 1", "nonsense: not an override; write key=value",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=svite", "method.sparsity=-0.1"], "method.sparsity=-0.1: input should be greater than or equal to 0"),
        (["model.num_heads=5"], "model.num_heads=5: does not divide model.embed_dim=48"),
        (["model.patch_size=3"], "model.patch_size=3: does not divide model.image_size=8"),
        (
            ["recipe.global_batch=63", "recipe.micro_batch=21", "recipe.mixup=0.2"],
            "mixup and cutmix mix pairs of images; make it even",
        ),
        (["recipe.micro_batch=12"], "recipe.micro_batch=12: does not divide recipe.global_batch=16"),
        (["recipe.epochs=1"], "recipe.warmup_epochs=1.5: must be below recipe.epochs=1"),
        (["scale=paper"], r"data.root: needs a value \(data.root=...\)"),
        (["method=s2vite", "method.sparsity=0.45"], "s2vite has levels 0, 0.3, 0.4, 0.5, 0.6, 0.7; for another, set"),
        (["method=svite", "method.weights.update_end_iterations=9000000"], "the training has 534"),
        (["method=svite", "method.weights.update_interval_iterations=99999999"], "masks would never change"),
        (["method=svite", "method.weights.growth=null"], "method.weights.growth=null: not known; nearest|valid"),
        (["method=svite", "method.weights.distribution=foo"], "^config: method.weights.distribution=foo: not known"),
        (["method=svite", "method.weights.update_interval_iterations=null"], "interval_iterations: needs a value"),
        (["method=svite", "method.weights.update_end_iterations=.inf"], "iterations=.inf: not a number"),
        (["method=svite", "method.weights.update_fraction=.nan"], "update_fraction=.nan: not a number"),
        (["method=tp", "method.weights.scoring_batches=1.5"], "scoring_batches=1.5: must be a whole number"),
        (
            ["method=gmp", "method.weights.initial_sparsity=0.9"],
            r"must be at least 0 and at most 0.5 \(method.sparsity\)",
        ),
        (["method=gmp", "method.weights.ramp_start=1"], "must be at least 0 and at most 0.999"),
        (["method=svite_plus", "method.tokens.kept=300"], r"must be at least 2 and at most 197 \(method.tokens.of\)"),
        (["method=omp", "method.starts_from=null"], "method.starts_from=null: not known"),
        (
            ["method=s2vite", "method.weights.heads_density=0.1", "method.weights.neurons_density=0.5"],
            "heads_density=0.1: keeps none of the 6 heads of a block; must be at least 1/6$",
        ),
        (
            ["method=ssp", "method.weights.heads_density=0.7", "method.weights.neurons_density=0.001"],
            "neurons_density=0.001: keeps none of the 192 neurons of a block; must be at least 1/192$",
        ),
        (["method=ia_red2", "method.tokens.heads=5"], "heads=5: does not divide the width 48 of"),
        (["method=ia_red2", "method.tokens.keep_rates=[0.5]"], "keep_rates=.0.5.: 1 rate for 3 interpreters; give one"),
        (["method=ia_red2", "method.tokens.initial_logit=high"], "initial_logit=high: not a number"),
        (
            ["method=random_dropping", "method.tokens.keep_rates=[0.5,0.5,0.5,0.4]"],
            "4 stages, but backbone=deit_small has 3 blocks; leave some out",
        ),
        *[
            (
                ["method=random_dropping", f"method.tokens.keep_rates={rates}"],
                r"keep_rates=.*: must be a list of numbers",
            )
            for rates in ("0.5", "null", "[]", "[2,1.5]", "[0.5,0.7]", "[0.5,0]", "[0.5,x]", "[true]")
        ],
        (["method=linformer", "method.tokens.of=null"], "method.tokens.of: needs a value"),
        (["method=svite_plus", "method.tokens.of=null"], "method.tokens.of: needs a value"),
        (["method=gmp", "method.weights.update_end_iterations=0"], "update_end_iterations=0: must be at least 1"),
        (["method=gmp", "method.weights.update_end_iterations=1"], "masks would never change"),
        (["method=imp", "method.sparsity=0.99"], "method.sparsity=0.99: parts that are never pruned hold"),
        (["backbone=resnet50", "method=spartan_neuron"], "block=neuron: masks heads and neurons, backbone=resnet50"),
        (["seed=0,1"], "a single run has one value for each key"),
        (["recipe.lr=inf"], "^config: recipe.lr=inf: input should be a finite number$"),
        (["data.mean=[nan]"], "^config: data.mean.0=nan: input should be a finite number$"),
        (["seed=true"], "^config: seed=true: a number is expected$"),
        (["data.mean=[true,0.5]"], r"^config: data\.mean=\[true, 0\.5\]: a number is expected$"),
        (["model.depth=true"], "^config: model.depth=true: a number is expected$"),
        (["~method"], "~method: every run needs one; choose another: "),
    ],
)
def test_one_error_says_what_to_do(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(overrides)


def test_levels_and_values_by_hand() -> None:
    assert compose(["method=s2vite", "method.sparsity=0.4"]).method.weights.heads_density == 0.7  # type: ignore[union-attr]
    by_hand = compose(
        [
            "method=s2vite",
            "method.sparsity=0.45",
            "method.weights.heads_density=0.5",
            "method.weights.neurons_density=0.6",
        ]
    )
    assert by_hand.method.weights is not None
    assert (by_hand.method.weights.heads_density, by_hand.method.weights.neurons_density) == (0.5, 0.6)
    assert compose(["method=svite_plus", "method.data_sparsity=0.3"]).method.tokens.kept_tokens == 138  # type: ignore[union-attr]


def test_model_keys_may_be_set() -> None:
    config = compose(["model.num_classes=7"])
    assert config.model.num_classes == 7
    assert config.backbone.local.num_classes == 10


@pytest.mark.parametrize(
    "override",
    [
        "data.workers=3",
        "run.root=elsewhere",
        "run.log_every_updates=3",
        "run.device=cpu",
        "tracker=none",
        "launcher.parallel=7",
        "recipe.micro_batch=32",
        "recipe.eval_batch=100",
    ],
)
def test_what_cannot_change_a_result_is_not_in_the_signature(override: str) -> None:
    assert compose([override]).signature == compose().signature


@pytest.mark.parametrize(
    "override",
    ["seed=1", "recipe.epochs=13", "recipe.lr=0.02", "method=svite", "backbone=deit_tiny", "model.depth=5",
     "scale=smoke", "data.limit_test=100"],
)  # fmt: skip
def test_what_can_change_a_result_is_in_the_signature(override: str) -> None:
    assert compose([override]).signature != compose().signature


# The last one is of rows that were run before there was `data.decoder`.
@pytest.mark.parametrize(
    ("overrides", "before"),
    [
        (["backbone=deit_small"], "5bea7bf8"),
        (
            ["data=shapes", "model.image_size=24", "model.patch_size=4", "model.in_chans=3", "model.num_classes=8"],
            "29e9974a",
        ),
        (["scale=paper", "data.root=/data/imagenet", "data.decoder=pil"], "3be4f2ae"),
    ],
)
def test_a_run_that_does_what_it_did_has_the_signature_it_had(overrides: list[str], before: str) -> None:
    assert compose(overrides).signature[:8] == before


def test_the_decoder_is_in_the_signature_where_it_is_another() -> None:
    paper = ["scale=paper", "data.root=/data/imagenet"]
    assert compose(paper).signature == compose([*paper, "data.decoder=fast"]).signature
    assert compose(paper).signature != compose([*paper, "data.decoder=pil"]).signature


def test_the_micro_batch_of_a_model_with_batch_norms_is_in_the_signature() -> None:
    resnet = ["backbone=resnet50", "method=dense"]
    assert compose([*resnet, "recipe.micro_batch=32"]).signature != compose(resnet).signature
    assert compose([*resnet, "recipe.eval_batch=32"]).signature == compose(resnet).signature


@pytest.mark.parametrize(
    "overrides",
    [
        ["scale=paper", "data.root=/data/imagenet"],
        ["method=ia_red2", "scale=smoke"],
        ["method=ia_red2", "scale=paper", "data.root=/data/imagenet"],
    ],
)
def test_the_memory_of_one_device_is_not_in_the_signature(overrides: list[str]) -> None:
    smaller = [*overrides, "recipe.micro_batch=16", "recipe.eval_batch=8"]
    if "method=ia_red2" in overrides:
        smaller.append("method.finetune.changes.micro_batch=16")
    config = compose(smaller)
    assert config.signature == compose(overrides).signature
    assert config.former_signature not in (None, config.signature)
    assert compose(overrides).former_signature is None


def test_a_record_of_another_batch_size_is_found_as_it_was_named_then(tmp_path: Path) -> None:
    config = compose(["recipe.micro_batch=32"])
    former = config.former_signature
    assert former is not None
    own = record_for(tmp_path, config, "table1", "deit_small/dense")
    assert own.path.name == f"seed0-{config.signature[:8]}"
    earlier = own.path.with_name(f"seed0-{former[:8]}")
    earlier.mkdir(parents=True)
    assert record_for(tmp_path, config, "table1", "deit_small/dense").path == earlier
    own.path.mkdir()
    assert record_for(tmp_path, config, "table1", "deit_small/dense") == own


def test_signature_refuses_what_json_cannot_hold_exactly() -> None:
    resolved = compose().model_dump(mode="json")
    resolved["recipe"]["lr"] = math.nan
    with pytest.raises(ValueError, match="not JSON compliant"):
        signature(resolved)
    resolved["recipe"]["lr"] = Path("x")
    with pytest.raises(TypeError):
        signature(resolved)


def test_signature_does_not_depend_on_the_order_of_keys() -> None:
    resolved = compose().model_dump(mode="json")
    assert signature(dict(reversed(resolved.items()))) == compose().signature


def test_the_named_list_names_real_keys() -> None:
    words = ["method=svite_plus", "scale=mini", "data.root=somewhere", "data.download=true"]
    resolved = compose(words).model_dump(mode="json")
    for key in NOT_IN_SIGNATURE:
        node = resolved
        for part in key.split("."):
            assert part in node, key
            node = node[part]


@pytest.mark.parametrize(
    "words",
    [
        ["method=linformer"],
        ["method=attention_dropping"],
        ["method=svite_plus", "method.data_sparsity=0.3"],
        ["method=s2vite_plus", "method.sparsity=0.3", "method.data_sparsity=0.3"],
    ],
)
def test_a_method_that_takes_blocks_for_one_attention_is_refused_where_they_are_not(words: list[str]) -> None:
    with pytest.raises(
        UserError,
        match=rf"{words[0]}: needs blocks that attend once over all tokens, unlike those of backbone=timesformer_base",
    ):
        compose([*words, "backbone=timesformer_base", "data=shapes_video"])
    assert "needs_joint_attention" not in str(compose(words).model_dump())


@pytest.mark.parametrize("method", ["random_dropping", "ia_red2"])
def test_a_method_that_asks_for_less_is_composed_there(method: str) -> None:
    assert compose([f"method={method}", "backbone=timesformer_base", "data=shapes_video"]).model.architecture


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in groups() for option in groups()[group]])
def test_options_composed_apart_are_what_hydra_composes_together(group: str, option: str) -> None:
    assert compose_groups({group: option}) == compose_with_hydra(((group, option),), config_dirs())


def test_methods_are_composed_once() -> None:
    assert all(own_section("method", option, config_dirs()) is not None for option in groups()["method"])


def test_overrides_of_keys_in_the_signature_can_change_a_result() -> None:
    words = ["launcher=inline", "launcher.gpus=2", "tracker=none", "data.root=/a", "run.root=r", "+data.workers=2"]
    assert not any(map(can_change_a_result, words))
    changing = ["recipe.epochs=3", "data=shapes", "data.limit_train=64", "~method.finetune", "runner=x", "seed=1"]
    assert all(map(can_change_a_result, changing))


def test_the_data_sets_that_need_a_folder_say_so_in_their_files() -> None:
    for file in (CONF_DIR / "data").glob("*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert (content["root"] == "???") == (content["name"] not in GENERATED), file.name
