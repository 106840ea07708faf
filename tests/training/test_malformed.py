"""Inputs made wrong one by one: each has a clear error and status 2, or is used, and nothing is left behind."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from kit import small_options, write_yaml

from dfpg_plugin.data.kernels import synthesise_kernels

WRONG = ("xyz", -1, [], {"a": 1}, True, None, float("nan"))


def leaves(opt: dict, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every key."""
    for key, value in opt.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def with_value(opt: dict, path: tuple, value: object) -> dict:
    changed = copy.deepcopy(opt)
    section = changed
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    return changed


def yaml_mutations() -> list[tuple[str, dict]]:
    """Return options in which one key has a value of another kind, is misspelt, or is missing."""
    opt = small_options()
    cases = []
    for number, path in enumerate(leaves(opt)):
        name = ":".join(path)
        for offset in (0, 3):  # two of the wrong values for each key, others for the next
            value = WRONG[(number + offset) % len(WRONG)]
            cases.append((f"{name}={value!r}", with_value(opt, path, value)))
        misspelt = with_value(opt, path, 0)
        section = misspelt
        for key in path[:-1]:
            section = section[key]
        section[f"{path[-1]}x"] = copy.deepcopy(section.pop(path[-1]))
        cases.append((f"{name}x", misspelt))
    return cases


class Outcomes:
    """Runs the command on each case and keeps what was not as it should be."""

    def __init__(self, command: Callable, folder: Path, capsys: pytest.CaptureFixture) -> None:
        self.command, self.folder, self.capsys = command, folder, capsys
        self.problems: list[str] = []
        self.statuses: dict[str, int] = {}

    def run(self, case: str, file: Path, *arguments: str) -> None:
        before = set(self.folder.rglob("*"))
        try:
            status = self.command("train", "-opt", file, "--dry-run", *arguments)
        except BaseException as error:
            self.problems.append(f"{case}: {type(error).__name__}: {error}")
            return
        output = self.capsys.readouterr()
        last = (output.err.strip().splitlines() or [""])[-1]
        self.statuses[case] = status
        if status not in (0, 2):
            self.problems.append(f"{case}: status {status}: {last}")
        if status == 2 and "basicsr: error: " not in output.err:
            self.problems.append(f"{case}: no message")
        if "Traceback" in output.err:
            self.problems.append(f"{case}: a traceback")
        if left := set(self.folder.rglob("*")) - before:
            self.problems.append(f"{case}: left {sorted(map(str, left))}")


@pytest.fixture
def outcomes(command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> Outcomes:
    return Outcomes(command, tmp_path, capsys)


@pytest.mark.slow
def test_options_of_another_kind_misspelt_or_missing(outcomes: Outcomes, tmp_path: Path) -> None:
    cases = yaml_mutations()
    assert len(cases) > 150
    for case, opt in cases:
        outcomes.run(case, write_yaml(tmp_path / "t.yml", opt))
        if case.endswith("x") and outcomes.statuses.get(case) == 0:
            outcomes.problems.append(f"{case}: a misspelt key was taken")
    assert outcomes.problems == []


def damaged(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield a file's content cut off, and with flipped bits, at random places, and none, zeros and text instead."""
    rng = np.random.default_rng(seed)
    for place in rng.integers(1, len(content), count):
        yield f"cut at {place}", content[:place]
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        yield f"bit flipped in {place}", bytes(flipped)
    yield "empty", b""
    yield "zeros", bytes(len(content))
    yield "text", b"not what you think\n" * 20


@pytest.mark.slow
def test_weights_that_are_damaged_or_others(outcomes: Outcomes, tmp_path: Path, demo_options: dict) -> None:
    from basicsr.archs import build_network

    weights = {"params": build_network(dict(demo_options["network_g"])).state_dict()}
    file = tmp_path / "net.pth"
    demo_options["path"]["pretrain_network_g"] = str(file)
    option_file = write_yaml(tmp_path / "t.yml", demo_options)
    torch.save(weights, file)
    content = file.read_bytes()
    for case, changed in damaged(content, 8, 0):
        file.write_bytes(changed)
        outcomes.run(f"weights {case}", option_file)
    first = next(iter(weights["params"]))
    tensors = weights["params"]
    others = {
        "of another shape": {**tensors, first: tensors[first][:-1]},
        "one missing": {k: v for k, v in tensors.items() if k != first},
        "one more": {**tensors, "more": tensors[first]},
        "text inside": {**tensors, first: "text"},
        "no tensors": {"a": 1},
        "a list": [1, 2],
        "a tensor": tensors[first],
        "complex": {**tensors, first: tensors[first].to(torch.complex64)},
        "sparse": {**tensors, first: tensors[first].to_sparse()},
        "on no device": {**tensors, first: tensors[first].to("meta")},
        "nan": {**tensors, first: tensors[first] * torch.nan},
    }
    for case, value in others.items():
        torch.save(value, file)
        outcomes.run(f"weights {case}", option_file)
    assert outcomes.problems == []
    assert {case: status for case, status in outcomes.statuses.items() if status != 2} == {}


@pytest.mark.slow
def test_checkpoints_that_are_damaged_are_never_gone_on_from(
    outcomes: Outcomes, command: Callable, tmp_path: Path, demo_options: dict
) -> None:
    demo_options["train"]["total_iter"] = 2
    option_file = write_yaml(tmp_path / "t.yml", demo_options)
    assert command("train", "-opt", option_file) == 0
    run = tmp_path / "experiments" / "small"
    for name in ("training_states/2.state", "training_states/2.sha256", "models/net_g_2.pth", "models/net_d_2.pth"):
        content = (run / name).read_bytes()
        for case, changed in damaged(content, 3, 1):
            (run / name).write_bytes(changed)
            outcomes.run(f"{name} {case}", option_file, "--auto_resume")
            assert outcomes.statuses.get(f"{name} {case}") == 2, (name, case)
        (run / name).write_bytes(content)
    outcomes.run("whole", option_file, "--auto_resume")
    assert outcomes.statuses["whole"] == 0
    assert outcomes.problems == []


@pytest.mark.slow
def test_images_that_are_damaged_or_none(outcomes: Outcomes, tmp_path: Path, demo_options: dict) -> None:
    from dfpg_plugin.data.faces import orl_faces

    folder = tmp_path / "faces"
    folder.mkdir()
    source = orl_faces("train")
    train = demo_options["datasets"]["train"]
    train.update(faces=None, split=None, dataroot_gt=str(folder), max_bad_share=0.0, batch_size_per_gpu=1)
    option_file = write_yaml(tmp_path / "t.yml", demo_options)
    for suffix in (".png", ".jpg", ".bmp"):
        path = folder / f"a{suffix}"
        content = cv2.imencode(suffix, source.read(source.names[0]))[1].tobytes()
        for case, changed in damaged(content, 5, 2):
            path.write_bytes(changed)
            outcomes.run(f"{suffix} {case}", option_file)
        path.unlink()
    for case, image in (("one pixel", np.zeros((1, 1, 3), np.uint8)), ("a line", np.zeros((300, 2, 3), np.uint8))):
        cv2.imwrite(str(folder / "a.png"), image)
        outcomes.run(case, option_file)
        assert outcomes.statuses[case] == 2
    assert outcomes.problems == []


@pytest.mark.slow
def test_kernels_and_lists_that_are_none(outcomes: Outcomes, tmp_path: Path, demo_options: dict) -> None:
    kernels, listed = tmp_path / "kernels", tmp_path / "list.txt"
    kernels.mkdir()
    (kernel,) = synthesise_kernels(5, 1, np.random.default_rng(0))
    train = demo_options["datasets"]["train"]
    train.update(dataroot_kernels=str(kernels), kernel_sizes=[5], kernels_per_size=1)
    option_file = write_yaml(tmp_path / "t.yml", demo_options)
    file = kernels / "psf5.npy"
    arrays = {
        "of objects": np.array([{"a": 1}], object), "text": np.array(["a"]), "one number": np.array(1.0),
        "nan": kernel * np.nan, "negative": -kernel, "nothing": np.zeros((0, 5, 5)), "all zero": np.zeros((5, 5)),
        "four axes": np.zeros((1, 1, 5, 5)), "even": np.ones((4, 4)), "oblong": np.ones((5, 7)),
    }  # fmt: skip
    for case, array in arrays.items():
        np.save(file, array, allow_pickle=True)
        outcomes.run(f"kernel {case}", option_file)
        assert outcomes.statuses.get(f"kernel {case}") == 2, case
    np.save(file, kernel)
    for case, changed in damaged(file.read_bytes(), 4, 3):
        file.write_bytes(changed)
        outcomes.run(f"kernel {case}", option_file)
    del train["dataroot_kernels"]
    train.update(faces=None, split=None, dataroot_gt=str(kernels), meta_info_file=str(listed))
    option_file = write_yaml(tmp_path / "t.yml", demo_options)
    for case, content in (
        ("empty", b""),
        ("binary", bytes(range(256))),
        ("absent", b"no.png (1,1,1) 1\n"),
        ("dots", b"../../x.png\n"),
    ):
        listed.write_bytes(content)
        outcomes.run(f"list {case}", option_file)
        assert outcomes.statuses.get(f"list {case}") == 2, case
    assert outcomes.problems == []
