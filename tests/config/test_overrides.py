"""Overrides as people type them: folders of any name, Hydra's `+`, `~` and sweeps, experiments and own config files."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro import locations
from repro.config.compose import compose
from repro.config.overrides import parse_override, quoted, split_sweep
from repro.config.site import site_defaults
from repro.errors import UserError
from repro.locations import PATH_VARIABLE, add_config_dirs, groups

ODD = [
    "o'brien",
    "a=b",
    "(1)",
    "[1]",
    "#1",
    "a&b",
    "a{b",
    "a;b",
    "a!b",
    "übung",
    "${x}",
    "a, b",
    "a\\b",
    'say "x"',
    "{b",
    "a{b}",
    "a$HOME",
    "a|b",
    "at@host",
    "c:d",
    "p%q",
    "*star",
    "+plus",
    "~tilde",
    "null",
    "1e3",
]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("key", ["data.root", "run.root"])
def test_a_folder_is_taken_as_it_is_typed(key: str, name: str) -> None:
    config = compose(["scale=paper", "data.root=x", f"{key}=/data/{name}"])
    assert (config.data.root if key == "data.root" else config.run.root) == f"/data/{name}"
    again = compose(["scale=paper", "data.root=x", f"{key}={quoted(f'/data/{name}')}"])
    assert again == config


@given(text=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_a_quoted_folder_may_have_any_name(text: str) -> None:
    folder = f"/{text}"
    assert parse_override(f"run.root={quoted(folder)}").value == folder


def test_the_home_folder_is_expanded() -> None:
    home = os.path.expanduser("~")
    assert compose(["scale=paper", "data.root=~/imagenet"]).data.root == f"{home}/imagenet"
    roots = "{imagenet: ~/imagenet,kinetics400:'/k, (2)'}"
    assert parse_override(f"data.root={roots}").value == {"imagenet": f"{home}/imagenet", "kinetics400": "/k, (2)"}
    assert parse_override("data.root=null").value is None


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("~nobodyx/a", "~nobodyx/a: no user nobodyx; write the folder in full, or ./~nobodyx/a if that is its name"),
        ("odd/l\udcfc", "'odd/l\\udcfc': not UTF-8; rename it"),  # the byte 0xfc on a command line
        ("", "'': an empty name; write . for the current folder"),
    ],
)
def test_a_name_that_cannot_be_a_folder_is_refused(folder: str, reason: str) -> None:
    for key, where in (("data.root", ["data=imagefolder"]), ("run.root", [])):
        with pytest.raises(UserError) as caught:
            compose(["scale=smoke", *where, f"{key}={folder}"])
        assert str(caught.value) == f"config: {key}={reason}"
    with pytest.raises(UserError, match=re.escape(reason)):
        compose(["scale=paper", f"data.root={{imagenet: {folder}}}"])


def test_an_override_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UserError, match="not UTF-8; write it in UTF-8"):
        parse_override("tracker.notes='l\udcfc'")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["~recipe.lr"], "recipe.lr: needs a value"),
        (["~seed"], "seed: needs a value (seed=...)"),
        (["lr=0.1"], "lr: no such key; valid: recipe.lr"),
        (["launcher.partition=gpu"], "launcher.partition: no such key; only with launcher=slurm"),
        (["method.weights.prune=x"], "method.weights.prune: no such key; only with method=svite, method=svite_plus"),
        (["~method"], "~method: every run needs one; choose another: "),
        (["~recipe.lrr"], "~recipe.lrr: no such key; nearest: recipe.lr"),
        (["+recipe.lrr=1"], "recipe.lrr: no such key; nearest: recipe.lr"),
        (["seed=1,2"], "seed=1,2: a single run has one value for each key"),
        (["recipe.lr=("], "recipe.lr=(: not an override"),
        (["recipe.lr=a\nb"], r"recipe.lr=a\nb: not an override"),
        (["recipe.lr=${recipe.nope}"], "Interpolation key 'recipe.nope' not found"),
        (["model=3"], "model=3: not a model"),
        (["experiment=svite_longr"], "no experiment 'svite_longr'; nearest: svite_longer"),
    ],
)
def test_a_wrong_override_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        compose(words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_optional_key_can_be_deleted() -> None:
    assert compose(["method=omp"]).method.finetune is not None
    assert compose(["method=omp", "~method.finetune"]).method.finetune is None


def test_an_experiment_sets_several_groups_and_overrides_win() -> None:
    config = compose(["experiment=svite_longer"])
    assert (config.backbone.name, config.method.name, config.recipe.epochs) == ("deit_tiny", "svite", 24)
    assert compose(["+experiment=svite_longer"]) == config
    for word in ("~experiment", "experiment=null"):
        assert compose(["experiment=svite_longer", word]) == compose([])
    changed = compose(["experiment=svite_longer", "method=omp", "recipe.epochs=7", "scale=smoke"])
    assert (changed.method.name, changed.recipe.epochs, changed.scale.name) == ("omp", 7, "smoke")


def test_a_sweep_is_the_product_of_its_values() -> None:
    words = ["seed=range(0,2)", "method=glob(spartan*, exclude=*block*)", "recipe.lr=0.1", "data.root=/a(b,c"]
    assert split_sweep(words, groups()) == [
        [f"seed={seed}", f"method={method}", "recipe.lr=0.1", "data.root=/a(b,c"]
        for seed in (0, 1)
        for method in ("spartan", "spartan_neuron")
    ]
    assert split_sweep(["data.root=/a,/b"], groups()) == [["data.root=/a"], ["data.root=/b"]]
    for value in ("interval(0,1)", "range(0,3,0)", "range(0,nan)", "range(3,0)", "glob(x*)"):
        with pytest.raises(UserError, match=r": no values; write seed=a,b,c"):
            split_sweep([f"seed={value}"], groups())
    for words in (["seed=range(1,1000000000)"], ["seed=range(0,2000)", "method=glob(*)"]):
        with pytest.raises(UserError, match="more than 10,000 runs"):
            split_sweep(words, groups())


@pytest.mark.parametrize("name", [*ODD, "a,b", "range(1,3)", "glob(*)"])
def test_a_folder_that_exists_is_one_value_of_a_sweep(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for typed in (tmp_path / name, quoted(str(tmp_path / name))):
        word = f"data.root={typed}"
        assert split_sweep([word, "seed=0,1"], groups()) == [[word, "seed=0"], [word, "seed=1"]]
        assert compose(["scale=paper", word]).data.root == str(tmp_path / name)


def test_a_sweep_has_one_folder_of_runs_even_if_it_is_new() -> None:
    assert split_sweep(["run.root=/new, runs", "seed=0,1"], groups()) == [
        ["run.root=/new, runs", "seed=0"],
        ["run.root=/new, runs", "seed=1"],
    ]


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of the repository, with a method and two experiments."""
    monkeypatch.setattr(locations, "added_config_dirs", [])
    folder = tmp_path / "my (conf)"
    for name, text in {
        "method/mine": "defaults: [svite, _self_]\nsparsity: 0.6\n",
        "experiment/mine": "# @package _global_\ndefaults:\n  - override /method: mine\nrecipe: {epochs: 3}\n",
        "method/based_on_a_typo": "defaults: [svit, _self_]\n",
        "method/dense": "sparsity: 0.6\n",
        "experiment/unknown": "# @package _global_\ndefaults:\n  - override /method: nope\n",
        "experiment/group": "# @package _global_\ndefaults:\n  - override /methd: svite\n",
        "experiment/relative": "# @package _global_\ndefaults:\n  - override method: svite\n",
        "experiment/nested": "# @package _global_\ndefaults:\n  - override /method: based_on_a_typo\n",
        "experiment/same_name": "# @package _global_\ndefaults:\n  - override /method: dense\n",
        "experiment/twice": "# @package _global_\ndefaults:\n  - /method: svite\n",
        "experiment/self": "# @package _global_\ndefaults: [_slef_]\n",
        "experiment/circle": "# @package _global_\ndefaults: [circle]\n",
        "experiment/hydra": "# @package _global_\nhydra: {run: {dir: x}}\n",
        "experiment/packageless": "recipe: {epochs: 3}\n",
        "experiment/misspelt": "\n# @package _global_\nrecipe: {epohcs: 3}\n",
        "experiment/wrong": "# @package _global_\nrecipe: {epochs: abc}\n",
        "experiment/interpolation": "# @package _global_\nrecipe:\n  epochs: ${nope}\n",
        "experiment/variable": "# @package _global_\nrecipe:\n  epochs: ${oc.env:NOPE}\n",
        "experiment/section": "# @package _global_\nrecipe: ${nope}\n",
        "experiment/braces": "# @package _global_\nrecipe: {epochs: ${nope}}\n",
        "experiment/no_value": "# @package _global_\nrecipe: {epochs: '???'}\n",
        "experiment/key": "# @package _global_\n1: 2\n",
        "experiment/endless": "# @package _global_\nrecipe: &a {epochs: *a}\n",
        "method/packaged": "# My own.\n\n# @package foo\nsparsity: 0.6\n",
        "experiment/number": "# @package _global_\ndefaults: 3\n",
        "experiment/torn": "# @package _global_\nrecipe: {epochs: 3\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    text = "# @package _global_\n# café\nrecipe: {epochs: 3}\n"
    for name, encoding in {"latin1": "latin-1", "utf16": "utf-16", "bom": "utf-8-sig"}.items():
        (folder / f"experiment/{name}.yaml").write_text(text, encoding=encoding)
    return folder


def test_own_config_files_work_anywhere(own_files: Path) -> None:
    with pytest.raises(UserError, match="no experiment 'mine'"):
        compose(["experiment=mine"])
    add_config_dirs([own_files])
    config = compose(["experiment=mine"])
    assert (config.method.sparsity, config.recipe.epochs) == (0.6, 3)
    assert compose(["method=mine"]).method.sparsity == 0.6
    with pytest.raises(UserError, match="no such folder of config files"):
        add_config_dirs([own_files / "nope"])


def test_the_environment_names_folders_of_config_files(own_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_files.rename(own_files.with_name("conf"))
    monkeypatch.setenv(PATH_VARIABLE, f"{own_files.parent.parent}{os.pathsep}{own_files.parent}")
    assert compose(["method=mine"]).method.sparsity == 0.6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown", "unknown.yaml: defaults: no method 'nope'; nearest: omp, mine"),
        ("group", "group.yaml: defaults: no group '/methd'; nearest: /method"),
        ("relative", "relative.yaml: defaults: no group '/experiment/method'; nearest: /experiment, /method"),
        ("nested", "based_on_a_typo.yaml: defaults: no method 'svit'; nearest: svite, "),
        ("same_name", "dense.yaml: not read, because "),
        ("twice", "twice.yaml: defaults: every run has a method; write `override /method: svite`"),
        ("interpolation", "interpolation.yaml: recipe.epochs: Interpolation key 'nope' not found; correct it"),
        ("variable", "variable.yaml: recipe.epochs: Environment variable 'NOPE' not found; correct it, or write a val"),
        ("section", "section.yaml: recipe: Interpolation key 'nope' not found"),
        ("braces", 'in braces, quote it: {key: "${other}"}'),
        ("no_value", "no_value.yaml: recipe.epochs: ??? would be ignored; write a value, or remove the key"),
        ("key", "key.yaml: 1=1: keys should be strings"),
        ("endless", "endless.yaml: "),
        ("self", "self.yaml: defaults: no experiment '_slef_'; nearest: _self_"),
        ("circle", "circle.yaml: defaults: names itself, directly or through other files"),
        ("hydra", "hydra.yaml: hydra: Hydra's own settings are not used; remove them"),
        ("misspelt", "misspelt.yaml: recipe.epohcs: no such key; nearest: epochs"),
        ("wrong", "wrong.yaml: recipe.epochs='abc': input should be a valid integer"),
        ("packageless", "packageless.yaml: must start with the line `# @package _global_`"),
        ("torn", "torn.yaml"),
        ("latin1", "latin1.yaml: not UTF-8 text; save it as UTF-8"),
        ("utf16", "utf16.yaml: not UTF-8 text; save it as UTF-8"),
        ("bom", "bom.yaml: starts with a byte order mark; save it as UTF-8 without one"),
        ("number", "number.yaml: defaults: must be a list, such as `- override /method: svite`"),
    ],
)
def test_an_own_file_with_a_mistake_is_one_line(own_files: Path, name: str, message: str) -> None:
    add_config_dirs([own_files])
    with pytest.raises(UserError) as raised:
        compose([f"experiment={name}"])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_keys_of_an_option_are_in_its_group(own_files: Path) -> None:
    add_config_dirs([own_files])
    with pytest.raises(UserError) as raised:
        compose(["method=packaged"])
    file, reason = own_files / "method" / "packaged.yaml", "the keys of a method are in method; remove that line"
    assert str(raised.value) == f"{file}: # @package foo: {reason}"


def test_the_main_config_is_not_replaced(own_files: Path) -> None:
    (own_files / "config.yaml").write_text("seed: 7\n")
    add_config_dirs([own_files])
    with pytest.raises(UserError, match=r"/config\.yaml: not read, because .* has the same name; rename the file$"):
        compose(["method=mine"])


def test_config_files_are_read_from_folders_only() -> None:
    with pytest.raises(UserError, match=r"^pkg://foo: config files are read from folders only, not from pkg://"):
        add_config_dirs(["pkg://foo"])


def test_site_defaults_apply_where_nothing_else_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(
        "data.root: {imagenet: ~/imagenet, kinetics400: /k}\n"
        "launcher: {partition: gpu, parallel: 3}\n"
        "run.root: /r (1)\n"
    )
    monkeypatch.setenv("REPRO_CONFIG", str(file))
    home = os.path.expanduser("~")
    paper = compose(["scale=paper", "launcher=slurm"])
    assert (paper.data.root, paper.run.root) == (f"{home}/imagenet", "/r (1)")
    assert (paper.launcher.partition, paper.launcher.parallel) == ("gpu", 3)  # type: ignore[union-attr]
    local = compose(["launcher.parallel=2"])  # no partition, and generated data
    assert (local.launcher.parallel, local.data.root) == (2, None)
    assert compose(["scale=paper", "data.root=/mine"]).data.root == "/mine"
    file.write_text("data.root: /one\nlauncher: slurm\n")
    os.utime(file, (1, 1))
    assert compose(["scale=paper"]).data.root == "/one"
    assert compose([]).launcher.name == "slurm"
    assert compose(["launcher=local"]).launcher.name == "local"
    monkeypatch.setenv("REPRO_CONFIG", "")
    assert compose([]).launcher.name == "inline"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe.epochs: 3", "recipe.epochs: not a site default"),
        ("launcher.partion: gpu", "launcher.partion: not a site default; nearest: launcher.partition"),
        ("- a", "not a mapping"),
        ("a: [", "line 1: not YAML"),
        ("launcher: slrm", "no launcher 'slrm'; nearest: slurm"),
        ("launcher.name: slurm", "launcher.name: not a site default"),
        ("launcher.parallel: many", "launcher.parallel='many': input should be a valid integer"),
        ("launcher.nodes: 0", "launcher.nodes=0: input should be greater than 0"),
        ("run.root: [1]", "run.root=[1]: input should be a valid string"),
        ("data.root: 3", "data.root=3: input should be a valid string"),
        ("data.root: {imagnet: /x}", "no data 'imagnet'; nearest: imagenet"),
    ],
)
def test_a_wrong_site_default_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "repro.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPRO_CONFIG")
    with pytest.raises(UserError) as raised:
        compose([])
    assert message in str(raised.value)
    assert "repro.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)
    monkeypatch.setenv("REPRO_CONFIG", str(tmp_path / "nope.yaml"))
    with pytest.raises(UserError, match=r"REPRO_CONFIG=.*: no such file"):
        site_defaults()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["experiment", "launcher", "method"]), st.binary(max_size=60), st.booleans())
def test_whatever_is_in_an_own_file_is_a_config_or_one_line(group: str, content: bytes, has_header: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        (Path(folder) / group).mkdir()
        (Path(folder) / group / "mine.yaml").write_bytes(b"# @package _global_\n" * has_header + content)
        patch.setattr(locations, "added_config_dirs", [])
        add_config_dirs([Path(folder)])
        message = ""
        try:
            compose([f"{group}=mine"])
        except UserError as error:
            message = str(error)
        # Errors in several keys are listed together, below their number.
        assert "\n" not in message or re.match(r"config: \d+ errors\n", message)


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("sclae=smoke", "scale"),
        ("metod=svite", "method"),
        ("backbon=deit_tiny", "backbone"),
        ("epochs=3", "recipe.epochs"),
    ],
)
def test_a_misspelt_group_is_offered_before_keys(word: str, nearest: str) -> None:
    key = word.partition("=")[0]
    with pytest.raises(UserError, match=rf"^config: {key}: no such key; nearest: {nearest}$"):
        compose([word])
