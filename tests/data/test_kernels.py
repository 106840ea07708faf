"""Synthesised kernels and MSPL's kernel files."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.interpolate import make_interp_spline
from scipy.io import savemat

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.kernel_files import read_kernels
from dfpg_plugin.data.kernels import _spline_basis, synthesise_kernels


@pytest.mark.parametrize("size", [3, 9, 13, 21])
def test_kernels_are_distributions_centred_in_their_square(size: int) -> None:
    kernels = synthesise_kernels(size, 12, np.random.default_rng(0)).astype(np.float64)
    assert kernels.shape == (12, size, size)
    assert kernels.min() >= 0
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-6)
    cells = np.arange(size)
    for axis in (1, 2):
        assert np.abs(kernels.sum(axis) @ cells - (size - 1) / 2).max() <= 0.5 + 1e-6


def test_the_trajectory_is_the_not_a_knot_spline_through_its_controls() -> None:
    controls = np.random.default_rng(0).uniform(1, 13, 6)
    reference = make_interp_spline(np.linspace(0, 1, 6), controls, k=3)  # not-a-knot is its default
    np.testing.assert_allclose(_spline_basis() @ controls, reference(np.linspace(0, 1, 30000)), atol=1e-9)


def test_kernels_are_connected_strokes() -> None:
    from scipy.ndimage import label

    for kernel in synthesise_kernels(15, 12, np.random.default_rng(3)):
        weighted = label(kernel > 0, np.ones((3, 3)))[1]
        assert weighted <= 3  # a cell's weight is 0 with probability 0.023, which may cut the stroke


def test_kernels_are_a_function_of_the_seed() -> None:
    def checksum(seed: int) -> str:
        return checksum_of(synthesise_kernels(9, 5, np.random.default_rng(seed)))

    assert checksum(0) == checksum(0) == CHECKSUM
    assert checksum(1) != checksum(0)


def checksum_of(kernels: np.ndarray) -> str:
    return hashlib.sha256(np.rint(kernels * 1e5).astype("<i4").tobytes()).hexdigest()[:16]


# of the first run, on an x86-64 machine; no other kind was tried
CHECKSUM = "12968df69c1b0587"
BORACCHI_FOI_CHECKSUM = "f3e0fa9b3c31b820"


@pytest.mark.parametrize("size", [1, 2, 12])
def test_even_and_tiny_sizes_are_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"odd number.*{size}"):
        synthesise_kernels(size, 1, np.random.default_rng(0))


def mspl_file(folder: Path, size: int, change=lambda stack: stack) -> np.ndarray:
    stack = np.random.default_rng(size).random((size, size, 4))
    savemat(folder / f"blur_k{size}.mat", {f"blurs_k{size}": change(stack)})
    return stack


def test_mspl_files_are_read_one_kernel_a_slice(tmp_path: Path) -> None:
    stacks = {size: mspl_file(tmp_path, size) for size in (13, 15)}
    kernels = read_kernels(tmp_path, [13, 15])
    for size, stack in stacks.items():
        np.testing.assert_allclose(kernels[size][2], stack[:, :, 2] / stack[:, :, 2].sum(), rtol=1e-6)
        assert kernels[size].dtype == np.float32


@pytest.mark.parametrize(
    "change",
    [lambda s: s[:-1], lambda s: -s, lambda s: s * np.nan, lambda s: s * 0],
    ids=["not square", "negative", "not a number", "empty"],
)
def test_wrong_mspl_kernels_are_refused_by_name(tmp_path: Path, change) -> None:
    mspl_file(tmp_path, 13, change)
    with pytest.raises(UserError, match=r"blur_k13.mat: "):
        read_kernels(tmp_path, [13])


def test_missing_and_foreign_kernel_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no kernel of \[13\] px"):
        read_kernels(tmp_path, [13])
    (tmp_path / "blur_k13.mat").write_text("no kernels")
    with pytest.raises(UserError, match=r"blur_k13.mat"):
        read_kernels(tmp_path, [13])
    with pytest.raises(UserError, match="dataroot_kernels"):
        read_kernels(tmp_path / "nowhere", [13])


def a_kernel(size: int, seed: int = 0) -> np.ndarray:
    kernel = np.random.default_rng(seed).random((size, size))
    return kernel / kernel.sum()


def test_shens_single_files_and_matlab_7_3_are_read(tmp_path: Path) -> None:
    import h5py

    savemat(tmp_path / "kernel_27_(1).mat", {"kernel": a_kernel(27)})
    stack = np.moveaxis(np.stack([a_kernel(13, 1), a_kernel(13, 2)]), 0, -1)
    with h5py.File(tmp_path / "blur_k13.mat", "w") as file:
        file["blurs_k13"] = stack.T
    kernels = read_kernels(tmp_path, [13, 27])
    np.testing.assert_allclose(kernels[27][0], a_kernel(27), rtol=1e-6)
    np.testing.assert_allclose(kernels[13][1], a_kernel(13, 2), rtol=1e-6)


def test_of_as_many_kernels_as_they_have_px_the_file_s_kind_tells_them_apart(tmp_path: Path) -> None:
    import h5py

    stack = np.random.default_rng(0).random((5, 5, 5))
    savemat(tmp_path / "a.mat", {"blurs_k5": stack})
    with h5py.File(tmp_path / "b.mat", "w") as file:
        file["blurs_k5"] = stack.T
    np.save(tmp_path / "c.npy", stack)
    found = read_kernels(tmp_path, [5])[5]
    for n in range(5):
        for kernel, expected in ((found[n], stack[..., n]), (found[5 + n], stack[..., n]), (found[10 + n], stack[n])):
            np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=1e-6)


def test_xias_pngs_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    import cv2

    for number in (10, 9, 2):
        levels = np.rint(a_kernel(13, number) * 65535 * 20).astype(np.uint16)
        cv2.imwrite(str(tmp_path / f"kernel13_{number}.png"), levels)
    kernels = read_kernels(tmp_path, [13])[13]
    for kernel, number in zip(kernels, (2, 9, 10), strict=True):
        np.testing.assert_allclose(kernel, a_kernel(13, number), atol=1e-4)
    np.testing.assert_array_equal(read_kernels(tmp_path, [13], (1, 3))[13], kernels[1:])
    with pytest.raises(UserError, match="kernel_range"):
        read_kernels(tmp_path, [13], (3, 9))


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.ones((13, 13, 3), np.uint8), "not grey"),
        (np.full((13, 13), 1 / 169, np.float32), "of float32"),  # a TIFF
        (None, "not an image, or damaged"),
    ],
)
def test_pngs_that_hold_no_kernel_are_named(tmp_path: Path, pixels: np.ndarray | None, what: str) -> None:
    content = b"" if pixels is None else cv2.imencode(".tiff", pixels)[1].tobytes()
    (tmp_path / "kernel13_1.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"kernel13_1\.png: {what}; expected a grey 16-bit kernel\. Remove it\."):
        read_kernels(tmp_path, [13])


def test_numpy_files_of_one_and_of_several_kernels_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", a_kernel(13))
    np.savez(tmp_path / "b.npz", many=np.stack([a_kernel(13, 1), a_kernel(13, 2)]), other=a_kernel(15))
    kernels = read_kernels(tmp_path, [13, 15])
    assert {size: len(stack) for size, stack in kernels.items()} == {13: 3, 15: 1}
    np.testing.assert_allclose(kernels[13][2], a_kernel(13, 2), rtol=1e-6)


@pytest.mark.parametrize(
    "kernel", [np.full((13, 13), np.nan), np.ones((12, 12)), -np.ones((13, 13)), np.zeros((13, 13)), np.ones((13, 15))]
)
def test_arrays_that_are_no_kernels_are_refused_by_name(tmp_path: Path, kernel: np.ndarray) -> None:
    np.save(tmp_path / "wrong.npy", kernel)
    with pytest.raises(UserError, match=r"wrong\.npy: "):
        read_kernels(tmp_path, [13])


def test_pickled_arrays_are_not_executed(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([Path(tmp_path)], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"evil\.npy"):
        read_kernels(tmp_path, [13])


def test_boracchi_and_fois_kernels_are_centred_and_a_function_of_the_seed() -> None:
    kernels = synthesise_kernels(13, 6, np.random.default_rng(0), "boracchi-foi").astype(np.float64)
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-6)
    assert kernels.min() >= 0
    for axis in (1, 2):
        np.testing.assert_allclose(kernels.sum(axis) @ np.arange(13), 6, atol=1e-5)
    again = synthesise_kernels(13, 6, np.random.default_rng(0), "boracchi-foi")
    np.testing.assert_array_equal(kernels, again)
    other = synthesise_kernels(13, 6, np.random.default_rng(1), "boracchi-foi")
    assert not any(np.array_equal(one, another) for one in kernels for another in other)
    assert checksum_of(kernels) == BORACCHI_FOI_CHECKSUM
    with pytest.raises(UserError, match="Did you mean boracchi-foi"):
        synthesise_kernels(13, 1, np.random.default_rng(0), "boracchi-fo")


@pytest.mark.parametrize("kind", [bool, complex])
def test_arrays_that_are_not_real_numbers_are_named(tmp_path: Path, kind: type) -> None:
    np.save(tmp_path / "a.npy", np.ones((13, 13), kind))
    with pytest.raises(UserError, match=r"a\.npy: expected real numbers, found (bool|complex128)"):
        read_kernels(tmp_path, [13])


def test_hidden_files_are_no_kernels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((13, 13)))
    (tmp_path / "._a.npy").write_bytes(b"Mac OS")
    assert read_kernels(tmp_path, [13])[13].shape == (1, 13, 13)


def test_a_negative_kernel_of_positive_sum_is_named(tmp_path: Path) -> None:
    kernels = np.ones((3, 13, 13))
    kernels[1, 4, 5] = -1e-9
    np.save(tmp_path / "a.npy", kernels)
    with pytest.raises(UserError, match=r"a\.npy: kernel 1 of 3 holds negative"):
        read_kernels(tmp_path, [13])
