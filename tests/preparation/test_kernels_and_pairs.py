"""Prepared kernels and test sets: reproducible, resumed after a break, in the published layout."""

import json
import re
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import files_of_at_most
from PIL import Image
from scipy.io import savemat
from scipy.signal import convolve2d

from dfpg_plugin.checks import UserError
from dfpg_plugin.data.deblur_test_dataset import FaceDeblurTestDataset
from dfpg_plugin.data.kernel_files import read_kernels
from dfpg_plugin.preparation import kernels as preparation
from dfpg_plugin.preparation import pairs
from dfpg_plugin.preparation.kernels import prepare_kernels
from dfpg_plugin.preparation.pairs import PairSettings, prepare_pairs


def test_kernels_are_a_function_of_their_settings_and_more_begin_alike(tmp_path: Path) -> None:
    first = prepare_kernels(tmp_path / "a", [5, 7], 3, 0, "chakrabarti")
    assert first == prepare_kernels(tmp_path / "b", [5, 7], 3, 0, "chakrabarti", workers=2)
    assert first[7] != prepare_kernels(tmp_path / "c", [7], 3, 1, "chakrabarti")[7]
    prepare_kernels(tmp_path / "d", [7], 5, 0, "chakrabarti")
    few, many = (read_kernels(tmp_path / name, [7])[7] for name in "ad")
    np.testing.assert_array_equal(many[:3], few)
    assert not any(np.array_equal(one, other) for one, other in combinations(many, 2))


def test_the_contact_sheet_shows_the_kernels_of_a_size_in_a_row(tmp_path: Path) -> None:
    prepare_kernels(tmp_path, [5, 9], 3, 0, "chakrabarti")
    sheet = cv2.imread(str(tmp_path / "contact_sheet.jpg")).astype(float)
    assert sheet.shape == (2 * 28 + 1, 16 * 28 + 1, 3)  # cells of 9 * 3 px, with a line of 1 px between
    for row, size in enumerate((5, 9)):
        for column, kernel in enumerate(read_kernels(tmp_path, [size])[size]):
            shown = sheet[28 * row + 1 : 28 * row + 28, 28 * column + 1 : 28 * column + 28]
            middle = np.pad(kernel / kernel.max(), (9 - size) // 2)
            expected = 255 * np.kron(middle, np.ones((3, 3)))[..., None]
            assert np.abs(shown - expected).mean() < 8  # of JPEG
        assert np.abs(sheet[28 * row + 1 : 28 * row + 28, 3 * 28 + 1 : 4 * 28]).mean() < 8  # there is no fourth


def test_kernels_that_are_there_are_kept_and_others_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_kernels(tmp_path, [5], 3, 0, "boracchi-foi")
    made = []
    synthesise = preparation._synthesise
    monkeypatch.setattr(preparation, "_synthesise", lambda size, *rest: made.append(size) or synthesise(size, *rest))
    prepare_kernels(tmp_path, [5, 7], 3, 0, "boracchi-foi")
    assert made == [7]
    with pytest.raises(UserError, match=r"other settings, \{'seed': 0\}"):
        prepare_kernels(tmp_path, [5], 3, 1, "boracchi-foi")
    savemat(tmp_path / "blur_k5.mat", {"blurs_k5": np.ones((5, 5, 3))})
    with pytest.raises(UserError, match=r"blur_k5\.mat: is not what kernels\.json says"):
        prepare_kernels(tmp_path, [5], 3, 0, "boracchi-foi")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "faces").mkdir()
    for name in ("1", "10"):
        rng = np.random.default_rng(int(name))
        cv2.imwrite(str(tmp_path / "faces" / f"{name}.png"), rng.integers(0, 256, (32, 40, 3), np.uint8))
    prepare_kernels(tmp_path / "kernels", [5, 7], 4, 0, "chakrabarti")
    return tmp_path


SETTINGS = PairSettings(sizes=(5, 7), kernels_per_size=3, seed=0, first_id=11)


def test_pairs_are_blurred_as_published_and_found_by_the_test_set(made: Path) -> None:
    target = made / "CelebA"
    assert prepare_pairs(made / "faces", made / "kernels", target, SETTINGS) == 12
    assert len(FaceDeblurTestDataset({"name": "t", "phase": "test", "dataroot": str(target)})) == 12
    entry = json.loads((target / "manifest.json").read_text())["pictures"]["CelebA_blur/10_ker12_blur_k7.png"]
    kernel = read_kernels(made / "kernels", [7])[7][entry["kernel"]]
    sharp, blurred = (cv2.imread(str(target / f"CelebA_{n}")) for n in ("gt/10.png", "blur/10_ker12_blur_k7.png"))
    padded = np.pad(sharp.astype(float), ((3, 3), (3, 3), (0, 0)), mode="reflect")
    expected = np.stack([convolve2d(padded[..., c], kernel / kernel.sum(), mode="valid") for c in range(3)], -1)
    np.testing.assert_array_equal(blurred, np.rint(expected).clip(0, 255))


def test_an_interrupted_set_is_finished_and_equals_one_without_a_break(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_pairs(made / "faces", made / "kernels", made / "a" / "X", SETTINGS)
    count = 0
    write = pairs._write

    def stop(*args, **facts):
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt
        return write(*args, **facts)

    monkeypatch.setattr(pairs, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_pairs(made / "faces", made / "kernels", made / "b" / "X", SETTINGS)
    before = {p: p.stat().st_mtime_ns for p in (made / "b").rglob("1_*.png")}
    assert len(before) == 6
    monkeypatch.setattr(pairs, "_write", write)
    prepare_pairs(made / "faces", made / "kernels", made / "b" / "X", SETTINGS)
    assert {p: p.stat().st_mtime_ns for p in (made / "b").rglob("1_*.png")} == before
    files = [{p.relative_to(made / x): p.read_bytes() for p in (made / x).rglob("*.*")} for x in "ab"]
    assert files[0] == files[1]
    with pytest.raises(UserError, match=r"other settings \(seed\)"):
        prepare_pairs(made / "faces", made / "kernels", made / "b" / "X", PairSettings((5, 7), 3, 1, 11))


def test_a_picture_that_does_not_fit_on_the_disk_is_not_there_and_made_when_there_is_room(made: Path) -> None:
    prepare_pairs(made / "faces", made / "kernels", made / "a" / "X", SETTINGS)
    size = (made / "a" / "X" / "X_gt" / "1.png").stat().st_size
    with files_of_at_most(size - 1), pytest.raises(UserError, match=r"1\.png: can't be written"):
        prepare_pairs(made / "faces", made / "kernels", made / "b" / "X", SETTINGS)
    assert [p.name for p in (made / "b" / "X").rglob("*.*")] == ["manifest.json"]
    prepare_pairs(made / "faces", made / "kernels", made / "b" / "X", SETTINGS)
    files = [{p.relative_to(made / x): p.read_bytes() for p in (made / x).rglob("*.*")} for x in "ab"]
    assert files[0] == files[1]


def test_faces_sizes_and_seeds_get_kernels_of_their_own_and_none_twice(made: Path) -> None:
    (made / "faces" / "2.png").write_bytes((made / "faces" / "1.png").read_bytes())  # the name decides
    prepare_kernels(made / "many", [5, 7], 40, 0, "chakrabarti")
    choices: dict[tuple, list[int]] = {}
    for seed in (0, 1):
        prepare_pairs(made / "faces", made / "many", made / f"S{seed}", PairSettings((5, 7), 12, seed))
        pictures = json.loads((made / f"S{seed}" / "manifest.json").read_text())["pictures"]
        for name, entry in pictures.items():
            if found := re.fullmatch(r"S\d_blur/(\d+)_ker\d+_blur_k(\d)\.png", name):
                choices.setdefault((seed, *found.groups()), []).append(entry["kernel"])
    assert len(choices) == 2 * 3 * 2
    assert all(len(set(chosen)) == 12 for chosen in choices.values())
    assert len({tuple(sorted(chosen)) for chosen in choices.values()}) == len(choices)


def test_crops_are_central_squares_and_wrong_requests_are_named(made: Path) -> None:
    prepare_pairs(made / "faces", made / "kernels", made / "C", PairSettings((5,), 1, 0, crop=24))
    wide = cv2.imread(str(made / "faces" / "1.png"))  # (32,40,3)
    expected = Image.fromarray(wide[:, 4:36]).resize((24, 24), Image.Resampling.BICUBIC)
    assert np.abs(cv2.imread(str(made / "C" / "C_gt" / "1.png")) - np.asarray(expected, int)).max() <= 1
    cv2.imwrite(str(made / "faces" / "10.png"), wide[:, :24])  # (32,24,3)
    for name, flag, size in (("G", "crop", 24), ("H", "cut", 21)):
        prepare_pairs(made / "faces", made / "kernels", made / name, PairSettings((5,), 1, 0, **{flag: size}))
        tall = cv2.imread(str(made / name / f"{name}_gt" / "10.png"))
        top, left = (32 - size) // 2, (24 - size) // 2
        np.testing.assert_array_equal(tall, wide[top : top + size, left : left + size])
    with pytest.raises(UserError, match="--per-size: 5 are more than the 4"):
        prepare_pairs(made / "faces", made / "kernels", made / "D", PairSettings((5,), 5, 0))
    with pytest.raises(UserError, match="is not empty"):
        prepare_pairs(made / "faces", made / "kernels", made / "faces", SETTINGS)


def test_a_range_of_kernels_counts_from_the_first_of_all(made: Path) -> None:
    settings = PairSettings((5, 7), 2, 0, kernel_range=(2, 4))
    prepare_pairs(made / "faces", made / "kernels", made / "R", settings)
    manifest = json.loads((made / "R" / "manifest.json").read_text())
    entries = [entry for name, entry in manifest["pictures"].items() if "_blur/" in name]
    assert {entry["kernel"] for entry in entries} == {2, 3}
    entry = manifest["pictures"]["R_blur/10_ker01_blur_k7.png"]
    kernel = read_kernels(made / "kernels", [7])[7][entry["kernel"]].astype(np.float64)
    sharp, blurred = (cv2.imread(str(made / "R" / f"R_{n}")) for n in ("gt/10.png", "blur/10_ker01_blur_k7.png"))
    padded = np.pad(sharp.astype(float), ((3, 3), (3, 3), (0, 0)), mode="reflect")
    expected = np.stack([convolve2d(padded[..., c], kernel / kernel.sum(), mode="valid") for c in range(3)], -1)
    np.testing.assert_array_equal(blurred, np.rint(expected).clip(0, 255))
    assert prepare_pairs(made / "faces", made / "kernels", made / "R", settings) == 8  # the same settings again
    with pytest.raises(UserError, match="--per-size: 3 are more than the 2"):
        prepare_pairs(made / "faces", made / "kernels", made / "S", PairSettings((5,), 3, 0, kernel_range=(2, 4)))
    with pytest.raises(UserError, match=r"kernel_range: \[4, 9\] leaves no kernel"):
        prepare_pairs(made / "faces", made / "kernels", made / "S", PairSettings((5,), 1, 0, kernel_range=(4, 9)))


def test_a_cut_keeps_the_central_pixels_and_a_limit_spreads_over_the_names(made: Path) -> None:
    for n in range(11, 18):
        (made / "faces" / f"{n}.png").write_bytes((made / "faces" / "10.png").read_bytes())
    prepare_pairs(made / "faces", made / "kernels", made / "C", PairSettings((5,), 1, 0, cut=24, limit=3))
    assert sorted(p.name for p in (made / "C" / "C_gt").iterdir()) == ["1.png", "12.png", "15.png"]
    face = cv2.imread(str(made / "faces" / "12.png"))  # (32,40,3)
    np.testing.assert_array_equal(cv2.imread(str(made / "C" / "C_gt" / "12.png")), face[4:28, 8:32])
    with pytest.raises(UserError, match="40x32 px is less than --cut 33"):
        prepare_pairs(made / "faces", made / "kernels", made / "D", PairSettings((5,), 1, 0, cut=33))


def test_a_request_that_failed_leaves_no_settings_behind(made: Path) -> None:
    target = made / "E"
    with pytest.raises(UserError, match="less than --crop 64"):
        prepare_pairs(made / "faces", made / "kernels", target, PairSettings((5,), 1, 0, crop=64))
    assert prepare_pairs(made / "faces", made / "kernels", target, PairSettings((5,), 1, 0, crop=24)) == 2


def test_a_changed_face_is_blurred_again_also_after_a_break(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (made / "faces", made / "kernels", made / "X", SETTINGS)
    prepare_pairs(*arguments)
    before = {p.name: p.read_bytes() for p in (made / "X" / "X_blur").iterdir()}
    cv2.imwrite(str(made / "faces" / "1.png"), np.full((32, 40, 3), 7, np.uint8))
    write = pairs._write

    def stop(path: Path, *args, **facts):
        if path.name == "1_ker12_blur_k5.png":
            raise KeyboardInterrupt
        return write(path, *args, **facts)

    monkeypatch.setattr(pairs, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_pairs(*arguments)
    monkeypatch.setattr(pairs, "_write", write)
    prepare_pairs(*arguments)
    for name, content in before.items():
        path = made / "X" / "X_blur" / name
        assert (path.read_bytes() == content) == name.startswith("10_"), name


def test_kernels_of_a_face_do_not_depend_on_the_others_and_lost_faces_are_named(made: Path) -> None:
    prepare_pairs(made / "faces", made / "kernels", made / "X", SETTINGS)
    (made / "faces" / "1.png").rename(made / "1.png")
    prepare_pairs(made / "faces", made / "kernels", made / "b" / "X", SETTINGS)
    name = "10_ker12_blur_k7.png"
    assert (made / "X" / "X_blur" / name).read_bytes() == (made / "b" / "X" / "X_blur" / name).read_bytes()
    with pytest.raises(UserError, match=r"holds faces that are no longer there: X_gt/1\.png"):
        prepare_pairs(made / "faces", made / "kernels", made / "X", SETTINGS)


def test_kernels_that_were_interrupted_or_lost_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (tmp_path, [5, 7], 3, 0, "chakrabarti")
    monkeypatch.setattr(preparation, "_write_manifest", stop_at(2, preparation._write_manifest))
    with pytest.raises(KeyboardInterrupt):  # after the first file, before it is noted
        prepare_kernels(*arguments)
    monkeypatch.undo()
    first = prepare_kernels(*arguments)
    (tmp_path / "blur_k5.mat").unlink()
    assert prepare_kernels(*arguments) == first
    np.save(tmp_path / "kernel5_0.npy", np.ones((5, 5)))  # not ours; does not count
    assert prepare_kernels(*arguments) == first
    with pytest.raises(UserError, match="odd number of at least 3 px, got 8"):
        prepare_kernels(tmp_path, [9, 8], 3, 0, "chakrabarti")
    assert not (tmp_path / "blur_k9.mat").exists()


def stop_at(call: int, function):
    calls = iter(range(1, 100))

    def stopped(*args):
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*args)

    return stopped
