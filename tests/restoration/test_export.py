"""Exported networks give PyTorch's numbers, also where this package is not installed."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from safetensors.torch import load_file, save_file

from dfpg_cli.main import main
from dfpg_plugin.checks import UserError
from dfpg_plugin.restoration import export as module
from dfpg_plugin.restoration.network import load_described
from dfpg_plugin.restoration.restorer import DFPGRestorer

SMALL = {"type": "DFPGNet", "num_feat": 16, "num_block": 1, "num_prior_block": 1, "squeeze_factor": 4}
ANOTHER_OPSET = ("another.onnx", "--opset", "20")
ALONE = """
import sys, numpy, onnxruntime
assert not any(name.split(".")[0] in ("torch", "basicsr", "dfpg_plugin") for name in sys.modules)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], **{key: session.run(None, {"blurred": given[key]})[0] for key in given})
"""


def write_dfpgnet(folder: Path) -> str:
    torch.manual_seed(0)
    net = build_network({**SMALL, "init_scale": 0.3})
    path = folder / "net.safetensors"
    state = {k: v.contiguous() for k, v in net.state_dict().items()}
    save_file(state, path, {"network_g": json.dumps(SMALL)})
    return str(path)


@pytest.fixture
def dfpgnet(tmp_path: Path) -> str:
    return write_dfpgnet(tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, str]]:
    """Export the network of ``dfpgnet`` into a new folder; return the file, to be read only, and what was said."""
    weights = write_dfpgnet(tmp_path_factory.mktemp("weights"))

    @cache  # ONNX takes seconds
    def export(name: str, *flags: str) -> tuple[Path, str]:
        file = tmp_path_factory.mktemp("exported") / "new" / "folder" / name
        with redirect_stderr(StringIO()) as said:
            assert main(["export", "-o", str(file), "--weights", weights, *flags]) == 0
        return file, said.getvalue()

    return export


@pytest.mark.parametrize("suffix", ["onnx", "pt", "safetensors"])
def test_each_kind_is_checked_at_three_sizes_and_two_batches(
    dfpgnet: str, exported: Callable, suffix: str, capsys
) -> None:
    file, said = exported(f"out.{suffix}")
    lines = [line for line in said.splitlines() if "from PyTorch" in line]
    assert len(lines) == 6
    assert file.is_file()
    assert main(["export", str(file), "--weights", dfpgnet]) == 2
    assert "is there already" in capsys.readouterr().err


def test_onnx_runs_alone_at_any_size_and_says_what_it_is(dfpgnet: str, exported: Callable, tmp_path: Path) -> None:
    import onnx

    file, _ = exported("out.onnx")
    rng = np.random.default_rng(0)
    shapes = [(1, 3, 64, 64), (2, 3, 17, 30), (3, 3, 101, 66)]
    given = {str(i): rng.random(shape, np.float32) for i, shape in enumerate(shapes)}
    np.savez(tmp_path / "given.npz", **given)
    command = [sys.executable, "-c", ALONE, str(file), str(tmp_path / "given.npz"), str(tmp_path / "got.npz")]
    subprocess.run(command, check=True, cwd=tmp_path)
    network, _ = load_described(dfpgnet, None)
    got = np.load(tmp_path / "got.npz")
    for key, images in given.items():
        assert np.abs(got[key] - network(torch.from_numpy(images)).numpy()).max() < 1e-4
    about = {entry.key: entry.value for entry in onnx.load(str(file)).metadata_props}
    assert json.loads(about["network_g"]) == SMALL
    assert about["opset"] == "18"


def test_torchscript_and_safetensors_carry_what_they_are(exported: Callable) -> None:
    extra = {"about.json": ""}
    torch.jit.load(str(exported("out.pt")[0]), _extra_files=extra)
    assert json.loads(json.loads(extra["about.json"])["network_g"]) == SMALL
    network, about = load_described(str(exported("out.safetensors")[0]), None)
    assert about["input"] == "RGB, B x 3 x H x W, 0 to 1"
    assert sum(p.numel() for p in network.parameters()) > 1e5


def test_a_training_can_go_on_from_an_exported_file(dfpgnet: str, tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "back.pth"), "--weights", dfpgnet]) == 0
    state = torch.load(tmp_path / "back.pth", weights_only=True)["params"]
    network, _ = load_described(dfpgnet, None)
    torch.testing.assert_close(dict(network.state_dict()), dict(state))


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Conv2d(3, 3, 3, padding=1).eval()
    for wrong in (lambda x: x + 1, lambda x: x * torch.nan, lambda x: x[..., 1:]):
        monkeypatch.setattr(module, "_load_script", lambda file, wrong=wrong: wrong)
        with pytest.raises(UserError, match=r"out\.pt: differs from PyTorch by .*not kept"):
            module.export(network, {}, tmp_path / "out.pt")
        assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(("by", "kept"), [(5e-5, True), (2e-4, False), (-2e-4, False)])
@pytest.mark.parametrize("where", [(1, 128, 128), (3, 256, 192)])
def test_a_file_is_kept_that_differs_by_less_than_a_ten_thousandth_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: float, kept: bool, where: tuple
) -> None:
    network = torch.nn.Conv2d(3, 3, 3, padding=1).eval()

    def off_at_one_place(faces: torch.Tensor) -> torch.Tensor:
        restored = network(faces)
        if (len(faces), *faces.shape[2:]) == where:
            restored[-1, 1, 7, 5] += by
        return restored

    monkeypatch.setattr(module, "_load_script", lambda file: off_at_one_place)
    if kept:
        checked = module.export(network, {}, tmp_path / "out.pt")
        assert max(row.largest_difference for row in checked) == pytest.approx(by, rel=0.01)
    else:
        with pytest.raises(UserError, match=r"differs from PyTorch by 2\.0e-04, more than 0\.0001"):
            module.export(network, {}, tmp_path / "out.pt")
    assert [file.name for file in tmp_path.iterdir()] == (["out.pt"] if kept else [])


def test_an_unknown_kind_is_refused(dfpgnet: str, tmp_path: Path, capsys) -> None:
    assert main(["export", str(tmp_path / "out.caffe"), "--weights", dfpgnet]) == 2
    assert "unknown kind" in capsys.readouterr().err


def test_a_file_may_carry_the_discriminators_attention(dfpgnet: str, tmp_path: Path, capsys) -> None:
    discriminator = {"type": "CAFeatureDiscriminator", "num_feat": 8}
    torch.manual_seed(1)
    net_d = build_network(dict(discriminator))
    torch.save({"params": net_d.state_dict()}, tmp_path / "net_d.pth")
    (tmp_path / "opt.yml").write_text(json.dumps({"network_g": SMALL, "network_d": discriminator}))
    arguments = ["export", str(tmp_path / "out.safetensors"), "--weights", dfpgnet, "--grey"]
    arguments += ["--discriminator", str(tmp_path / "net_d.pth")]
    assert main(arguments) == 2
    assert "--discriminator: needs" in capsys.readouterr().err
    assert main([*arguments, "-opt", str(tmp_path / "opt.yml"), "--overwrite"]) == 0
    restorer = DFPGRestorer(str(tmp_path / "out.safetensors"))
    assert restorer.sees_grey
    prior = torch.randn(1, 128, 9, 7)
    attended = net_d.channel_attention[1](prior)
    torch.testing.assert_close(restorer.attention(2, prior), (attended / prior)[0, :, 0, 0])
    again = str(tmp_path / "again.safetensors")
    assert main(["export", again, "--weights", str(tmp_path / "out.safetensors")]) == 0
    assert DFPGRestorer(again).sees_grey
    plain = DFPGRestorer(dfpgnet)
    torch.testing.assert_close(plain.attention(2, prior), prior[0].abs().mean(dim=(1, 2)))


def test_half_precision_in_onnx_is_that_of_the_weights_alone(dfpgnet: str, exported: Callable) -> None:
    """The graph computes in single precision, with the numbers of the safetensors file in half precision."""
    import onnx
    import onnxruntime
    from onnx import TensorProto

    asked = (["out.onnx"], [*ANOTHER_OPSET, "--half"], ["half.safetensors", "--half"])
    files = [exported(*arguments)[0] for arguments in asked]
    sizes = [sum(np.prod(w.dims) * (2 if w.data_type == TensorProto.FLOAT16 else 4) for w in graph.initializer)
             for graph in (onnx.load(file).graph for file in files[:2])]  # fmt: skip
    assert sizes[1] < 0.51 * sizes[0]
    face = np.random.default_rng(0).random((1, 3, 40, 56), np.float32)
    got = onnxruntime.InferenceSession(files[1]).run(None, {"blurred": face})[0]
    with torch.no_grad():
        wanted = load_described(str(files[2]), None)[0](torch.from_numpy(face)).numpy()
        whole = load_described(dfpgnet, None)[0](torch.from_numpy(face)).numpy()
    assert np.abs(got - wanted).max() < 1e-5 < np.abs(got - whole).max()


@pytest.mark.parametrize("suffix", ["onnx", "pt"])
def test_a_network_that_can_not_be_exported_is_no_full_disk(
    dfpgnet: str, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("this operator is unknown")

    monkeypatch.setattr(torch.onnx, "export", fail)
    monkeypatch.setattr(torch.jit, "trace", fail)
    assert main(["export", str(tmp_path / f"out.{suffix}"), "--weights", dfpgnet]) == 2
    said = capsys.readouterr().err
    assert "can't be exported (this operator is unknown)" in said
    assert "Make room" not in said
    assert list(tmp_path.glob("out*")) == []


def test_half_precision_halves_the_file_and_rounds_each_weight(
    dfpgnet: str, exported: Callable, tmp_path: Path, capsys
) -> None:
    (whole, _), (half, _) = exported("out.safetensors"), exported("half.safetensors", "--half")
    sizes = [sum(t.numel() * t.element_size() for t in load_file(file).values()) for file in (whole, half)]
    assert sizes[0] == 2 * sizes[1]
    exact, rounded = (load_described(str(file), None)[0].state_dict() for file in (whole, half))
    for name, weight in exact.items():
        assert np.array_equal(rounded[name].numpy(), weight.numpy().astype(np.float16).astype(np.float32))
    again = tmp_path / "again.safetensors"  # single precision unless it is asked for, whatever was given
    assert main(["export", str(again), "--weights", str(half)]) == 0
    assert {t.dtype for t in load_file(again).values()} == {torch.float32}
    capsys.readouterr()
    assert main(["export", str(tmp_path / "net.pt"), "--weights", dfpgnet, "--half"]) == 2
    assert "--half: has an effect on a .safetensors or .onnx only" in capsys.readouterr().err
    large = {name: 1e6 * weight for name, weight in load_file(dfpgnet).items()}
    save_file(large, tmp_path / "large.safetensors", {"network_g": json.dumps(SMALL)})
    arguments = ["--weights", str(tmp_path / "large.safetensors"), "--half"]
    assert main(["export", str(tmp_path / "a.safetensors"), *arguments]) == 2
    assert "has weights beyond 65,504" in capsys.readouterr().err


@pytest.mark.parametrize(("opset", "arguments"), [(18, ["out.onnx"]), (20, [*ANOTHER_OPSET, "--half"])])
def test_onnx_of_an_opset_in_a_new_folder_with_its_least_size(
    dfpgnet: str, exported: Callable, opset: int, arguments: list[str]
) -> None:
    import onnx

    file, _ = exported(*arguments)
    model = onnx.load(str(file))
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]
    assert {entry.key: entry.value for entry in model.metadata_props}["least_side"] == "16"
    network, _ = load_described(dfpgnet, None)
    run = module._load_onnx(file)
    assert run(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    for refusing in (run, network):
        with pytest.raises(UserError, match="15x16 px is too small, each side needs at least 16 px"):
            refusing(torch.rand(1, 3, 15, 16))


@pytest.mark.parametrize(
    ("name", "flags", "text"),
    [
        ("a.onnx", ["--opset", "7"], "--opset: expected a number from 18 to 23, got 7"),
        ("a.pt", ["--opset", "18"], "--opset: has an effect on a .onnx only"),
    ],
)
def test_opsets_that_there_are_not(dfpgnet: str, tmp_path: Path, name: str, flags: list, text: str, capsys) -> None:
    assert main(["export", str(tmp_path / name), "--weights", dfpgnet, *flags]) == 2
    assert text in capsys.readouterr().err


def test_a_network_that_needs_larger_pictures_is_checked_at_these(tmp_path: Path) -> None:
    class Large(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.nn.functional.avg_pool2d(x, 70).mean((2, 3), keepdim=True)

    assert module.least_side(Large()) == 70
    checked = module.export(Large().eval(), {}, tmp_path / "large.pt")
    assert {(row.height, row.width) for row in checked} == {(128, 128), (101, 70), (256, 192)}


def test_an_input_is_never_written_over(dfpgnet: str, capsys: pytest.CaptureFixture) -> None:
    before = Path(dfpgnet).read_bytes()
    assert main(["export", "-o", dfpgnet, "--weights", dfpgnet, "--half", "--overwrite"]) == 2
    assert "is the file of --weights, an input" in capsys.readouterr().err
    assert Path(dfpgnet).read_bytes() == before
    assert main(["export", "-o", str(Path(dfpgnet).with_suffix(".pth")), "--weights", dfpgnet, "--grey"]) == 2
    assert "--grey: has no effect on a .pth" in capsys.readouterr().err
