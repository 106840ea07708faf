"""Reading option files: safely, with forced values, completed as BasicSR completes them."""

from pathlib import Path

import pytest
import yaml
from kit import ROOT, write_yaml

from dfpg_plugin.checks import UserError
from dfpg_plugin.options.completing import Arguments, complete
from dfpg_plugin.options.reading import force, read_option_file, read_yaml


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("-2E+3", -2000.0), ("1.5e3", 1500.0), ("1.0e-4", 1e-4)])
def test_numbers_with_an_exponent_are_numbers(text: str, value: float) -> None:
    assert read_yaml(text, "t") == value


@pytest.mark.parametrize(("text", "value"), [("12", 12), ("e4", "e4"), ("1e", "1e"), ("true", True), ("~", None)])
def test_other_values_are_yamls(text: str, value: object) -> None:
    assert read_yaml(text, "t") == value


@pytest.mark.parametrize(
    "text",
    [
        "x: !!python/object/apply:os.system ['touch executed']",
        "x: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['executed']]",
        "x: !!python/name:os.system",
    ],
)
def test_yaml_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "evil.yml"
    file.write_text(f"name: t\n{text}\n")
    with pytest.raises(UserError, match=r"evil.yml, line 2: could not determine a constructor"):
        read_option_file(str(file))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", r"t.yml, line \d+: "),
        (b"- 1\n- 2", "expected options as `key: value`, got list"),
        (b"", "expected options as `key: value`, got NoneType"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_files_that_are_no_options_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.yml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_option_file(str(tmp_path / "t.yml"))


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"-opt: .*none.yml does not exist"):
        read_option_file(str(tmp_path / "none.yml"))
    with pytest.raises(UserError, match="is a folder"):
        read_option_file(str(tmp_path))


def test_forced_values_are_read_as_yaml() -> None:
    opt: dict = {"train": {"optim_g": {"lr": 1.0}}, "name": "a"}
    force(opt, ["train:optim_g:lr=1e-4", "name=b", "train:betas=[0.9, -1]", "train:x=~", "train:y=a=b"])
    assert opt == {"train": {"optim_g": {"lr": 1e-4}, "betas": [0.9, -1], "x": None, "y": "a=b"}, "name": "b"}


@pytest.mark.parametrize(
    "entry",
    [
        'name"];__import__("pathlib").Path("executed").touch();opt["name=toy',
        'name=[__import__("pathlib").Path("executed").touch()]',
        "train",
        "trian:total_iter=3",
        "name:sub=3",
    ],
)
def test_forcing_executes_nothing_and_needs_a_section(tmp_path: Path, monkeypatch, entry: str) -> None:
    monkeypatch.chdir(tmp_path)
    opt: dict = {"name": "a", "train": {"total_iter": 1}}
    try:
        force(opt, [entry])
    except UserError as error:
        assert "--force_yml" in str(error)
    else:
        assert opt["name"] == ['__import__("pathlib").Path("executed").touch()']
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "options").glob("*.yml")), ids=lambda p: p.name)
def test_shipped_options_mean_the_same_to_basicsrs_loader(path: Path) -> None:
    """YAML 1.1 reads 1e-4 as text, so that a file could mean something else under --stock."""
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == read_option_file(str(path))


def test_completed_options_equal_basicsrs(tmp_path: Path, demo_options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from basicsr.utils.options import parse_options

    demo_options["path"] = {"pretrain_network_g": "~/net.pth", "resume_state": None}
    file = write_yaml(tmp_path / "t.yml", demo_options)
    monkeypatch.setattr("sys.argv", ["basicsr", "-opt", str(file), "--debug"])
    expected, _ = parse_options(str(tmp_path), is_train=True)
    got = complete(read_option_file(str(file)), Arguments(str(file), debug=True), tmp_path, is_train=True)
    ours = {"root_path", "seed", "suffix", "debug"}  # what BasicSR adds later, and what it leaves to chance
    got["rank"], got["world_size"] = 0, 1
    got["datasets"]["train"].pop("seed")
    assert {k: v for k, v in got.items() if k not in ours | {"val"}} == {
        k: v for k, v in expected.items() if k != "val"
    }
    assert {k: v for k, v in got["val"].items() if k not in ours} == dict(expected["val"])


def test_optional_keys_may_be_left_out(tmp_path: Path) -> None:
    opt = {"name": "t", "model_type": "M", "datasets": {"train": {"type": "D"}}, "train": {"total_iter": 3}}
    complete(opt, Arguments("t.yml"), tmp_path, is_train=True)
    assert opt["logger"] == {"print_freq": 100, "save_checkpoint_freq": 5000, "use_tb_logger": False}
    assert opt["datasets"]["train"]["num_worker_per_gpu"] == 0
    assert isinstance(opt["manual_seed"], int)


@pytest.mark.parametrize(
    ("given", "gpus"), [({}, 3), ({"num_gpu": "auto"}, 3), ({"num_gpu": 2}, 2), ({"num_gpu": 0}, 0)]
)
def test_all_gpus_are_counted_unless_a_number_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict, gpus: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    opt = {"name": "t", "model_type": "M", "datasets": {"test": {"type": "D"}}, **given}
    assert complete(opt, Arguments("t.yml"), tmp_path, is_train=False)["num_gpu"] == gpus


def test_the_scale_and_the_seed_of_the_run_are_those_of_its_data_sets(tmp_path: Path) -> None:
    datasets = {"train": {"type": "D"}, "val": {"type": "D", "seed": 5}, "val_2": {"type": "D"}}
    opt = {
        "name": "t",
        "model_type": "M",
        "scale": 4,
        "manual_seed": 9,
        "datasets": datasets,
        "train": {"total_iter": 3},
    }
    found = complete(opt, Arguments("t.yml"), tmp_path, is_train=True)["datasets"].values()
    assert [(d["phase"], d["scale"], d.get("seed")) for d in found] == [
        ("train", 4, 9),
        ("val", 4, 5),
        ("val", 4, None),
    ]


@pytest.mark.parametrize("name", ["debug", "debug_x", "undebugged"])
def test_a_name_with_debug_in_it_changes_no_frequency(tmp_path: Path, demo_options: dict, name: str) -> None:
    demo_options["name"] = name
    demo_options["val"]["val_freq"] = 1000
    demo_options["logger"].update(print_freq=50, save_checkpoint_freq=500)
    opt = complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)
    assert (opt["logger"]["print_freq"], opt["logger"]["save_checkpoint_freq"], opt["val"]["val_freq"]) == (
        50, 500, 1000
    )  # fmt: skip
    opt = complete(demo_options, Arguments("t.yml", debug=True), tmp_path, is_train=True)
    assert (opt["logger"]["print_freq"], opt["logger"]["save_checkpoint_freq"], opt["val"]["val_freq"]) == (1, 8, 8)


@pytest.mark.parametrize("name", ["a/b", ["a"], 3])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path: Path, demo_options: dict, name: object) -> None:
    with pytest.raises(UserError, match="name: expected text without a slash"):
        complete({**demo_options, "name": name}, Arguments("t.yml"), tmp_path, is_train=True)


@pytest.mark.parametrize("key", ["name", "model_type", "datasets", "train"])
def test_missing_sections_are_named(tmp_path: Path, demo_options: dict, key: str) -> None:
    del demo_options[key]
    with pytest.raises(UserError, match=f"'{key}' is missing"):
        complete(demo_options, Arguments("t.yml"), tmp_path, is_train=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", r"line 4: b:c stands in line 3 already"),
        ("a: &x [1, *x]\n", r"line 1: an alias contains itself"),
        (
            "a0: &a0 [1,1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30)),
            "repeat more than",
        ),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_what_yaml_would_take_and_nobody_means_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_option_file(str(tmp_path / "t.yml"))
