"""Folders of everything: each file is restored, or listed with the reason; batches go on; results are no inputs."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from kit import photo
from PIL import Image
from restoration.test_files import write_video

from dfpg_plugin.checks import UserError
from dfpg_plugin.media.reading import read_picture
from dfpg_plugin.restoration import files, video
from dfpg_plugin.restoration.inputs import FOLDER_OF_PATTERN, find_inputs, plan_outputs
from dfpg_plugin.restoration.settings import FaceReport

SMALL = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
PICTURE = Image.fromarray(SMALL)


def report_of(folder: Path, name: str = "report.json") -> dict:
    return json.loads((folder / name).read_text())


def results_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".json")


def fill(folder: Path) -> tuple[set[str], set[str], set[str]]:
    """Write 40 files of every kind; return those that can be restored, those that fail, and those that are no use."""
    (folder / "deep" / ".thumbs").mkdir(parents=True)
    kinds = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "bmp": "BMP", "tif": "TIFF",
             "tiff": "TIFF", "webp": "WEBP", "avif": "AVIF", "gif": "GIF", "jp2": "JPEG2000", "ppm": "PPM",
             "HEIC": "JPEG", "JPG": "JPEG", "dat": "PNG"}  # fmt: skip
    good = {f"{i:02}.{suffix}": kind for i, (suffix, kind) in enumerate(kinds.items())}
    good |= {"noname": "PNG", "deep/a.png": "PNG", "deep/b.jpg": "JPEG", "deep/c d.png": "PNG", "x.png": "PNG",
             "x.jpg": "JPEG", "ä.png": "PNG"}  # fmt: skip
    for name, kind in good.items():
        PICTURE.save(folder / name, kind)
    PICTURE.save(folder / "camera.jpg", "MPO", save_all=True, append_images=[PICTURE])
    write_video(folder / "film.mp4", 2, with_sound=False)
    PICTURE.save(folder / "moving.gif", save_all=True, append_images=[PICTURE.rotate(180)])
    whole = (folder / "00.png").read_bytes()
    bad = {"cut.png": whole[:300], "text.jpg": b"text", "empty.png": b"", "bad.mp4": b"no video"}
    useless = {
        **{"notes.txt": b"x", "none": b"", "data.json": b"{}", "IMG.heic": b"\0\0\0\x18ftypheic\0\0\0\0"},
        **{".DS_Store": b"", "._film.mp4": b"x", ".hidden.png": whole, "deep/.thumbs/a.png": whole, "half": whole[:20]},
    }
    for name, content in {**bad, **useless}.items():
        (folder / name).write_bytes(content)
    PICTURE.save(folder / "old.tga")
    useless = {name for name in useless if not name.startswith("deep/")} | {"deep/.thumbs/", "old.tga"}
    return {*good, "camera.jpg", "film.mp4"}, {*bad, "moving.gif"}, useless


def test_each_file_of_a_folder_of_everything_is_accounted_for(restore: Callable, tmp_path: Path) -> None:
    good, bad, useless = fill(tmp_path / "in")
    assert sum(path.is_file() for path in (tmp_path / "in").rglob("*")) == len({*good, *bad, *useless}) == 40
    status, said = restore("in", "-o", "out", "--mode", "aligned")
    assert status == 1
    assert f"in {len(good)} of 39 files, {len(bad)} failed, {len(useless) - 1} left out" in said  # and a folder
    report = report_of(tmp_path / "out")
    of = {Path(file["input"]).relative_to("in").as_posix(): file for file in report["files"]}
    of["deep/.thumbs/"] = of.pop("deep/.thumbs")  # a folder that is hidden is listed as one
    assert len(report["files"]) == 40
    for group, key in ((good, "output"), (bad, "error"), (useless, "left_out")):
        assert {name for name, file in of.items() if file[key]} == group, key
    assert report["totals"] == {
        "files": 39, "written": len(good), "failed": len(bad), "left_out": len(useless) - 1, "not_reached": 0,
        "faces": report["totals"]["faces"], "failed_faces": 0,
    }  # fmt: skip
    for name in good:
        written = Path(of[name]["output"])
        assert written.is_file()
        if name != "film.mp4":
            assert Image.open(written).size == PICTURE.size
    assert len({file["output"] for file in of.values()} - {None}) == len(good)
    for name in {*bad, *useless}:
        assert f"in/{name}: " in said, name
    assert "main picture, which was left out: 40x32 px" in of["camera.jpg"]["notes"][0]
    assert of["IMG.heic"]["left_out"] == "HEIC, which can't be read: convert it to JPEG or PNG"


def test_pictures_that_differ_in_their_suffix_keep_it(restore: Callable, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("x.png", "x.jpg", "x.webp", "y.jpg"):
        PICTURE.save(tmp_path / "in" / name)
    status, said = restore("in", "-o", "out", "--mode", "aligned", "--side-by-side")
    assert status == 0
    assert [name for name in results_in(tmp_path / "out") if "side" not in name] == [
        "x.jpg.png", "x.png", "x.webp.png", "y.png",
    ]  # fmt: skip
    assert "in/x.jpg: is written as x.jpg.png: another file's result has the shorter name" in said
    for name in ("x.jpg", "x.webp"):  # each is its own picture's
        before = cv2.imread(str(tmp_path / "in" / name)).astype(float)
        after = cv2.imread(str(tmp_path / "out" / f"{name}.png"))
        assert np.abs(after - np.minimum(before + 25.5, 255)).max() <= 1


def test_files_of_one_name_in_two_folders_go_into_folders(restore: Callable, tmp_path: Path) -> None:
    for name in ("day1/a.jpg", "day2/a.jpg", "day2/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        PICTURE.save(tmp_path / name)
    assert restore("day1", "day2", "-o", "out", "--mode", "aligned")[0] == 0
    assert results_in(tmp_path / "out") == ["b.png", "day1/a.png", "day2/a.png"]
    status, _ = restore("day1/a.jpg", "day2/a.jpg", "day1/a.jpg", "day1", "-o", "named", "--mode", "aligned")
    assert status == 0  # and a file that is named twice is restored once
    assert results_in(tmp_path / "named") == ["day1/a.png", "day2/a.png"]


def test_names_that_can_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    for name in ("a/in/x.png", "b/in/x.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        PICTURE.save(tmp_path / name)
    inputs = find_inputs([str(tmp_path / "a" / "in"), str(tmp_path / "b" / "in")], tmp_path / "out")
    with pytest.raises(UserError, match=r"would both be written to .*in/x\.png\. Restore them one by one"):
        plan_outputs(inputs, tmp_path / "out", None, overwrite=False, skip_existing=False, side_by_side=False)


@pytest.mark.parametrize("given", [["in"], ["."], ["in/**/*.png"]])
def test_results_in_the_folder_itself_do_not_become_inputs(restore: Callable, tmp_path: Path, given: list) -> None:
    (tmp_path / "in").mkdir()
    PICTURE.save(tmp_path / "in" / "a.png")
    assert restore(*given, "-o", "in/results", "--mode", "aligned")[0] == 0
    PICTURE.save(tmp_path / "in" / "b.png")
    status, said = restore(*given, "-o", "in/results", "--mode", "aligned", "--skip-existing")
    assert status == 0
    assert "in/results/: left out: the folder of the results" in said
    assert sorted(Path(name).name for name in results_in(tmp_path / "in" / "results")) == ["a.png", "b.png"]
    assert [Path(f["output"]).name for f in report_of(tmp_path / "in" / "results", "report_2.json")["files"][:1]] == [
        "b.png"
    ]


def test_a_folder_is_not_its_own_output(restore: Callable, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    PICTURE.save(tmp_path / "in" / "a.jpg")
    status, said = restore("in", "-o", "in")
    assert status == 2
    assert "-o: in is an input itself, so that its results would be inputs. Choose another folder." in said
    assert results_in(tmp_path / "in") == ["a.jpg"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_says_what_is_left_and_goes_on(
    restore: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(12):
        PICTURE.save(tmp_path / "in" / f"{i:02}.png")
    restored: list[str] = []
    read = files.read_picture

    def interrupt(path: Path) -> object:
        if len(restored) == 2:
            signal.raise_signal(number)
        restored.append(path.name)
        return read(path)

    monkeypatch.setattr(files, "read_picture", interrupt)
    # a shell lets what it starts in the background ignore SIGINT
    before_the_test = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, said = restore("in", "-o", "out", "--mode", "aligned")
    finally:
        signal.signal(signal.SIGINT, before_the_test)
    assert status == 128 + number
    assert "2 faces in 2 of 12 files, 10 not reached, see out/report.json" in said
    report = report_of(tmp_path / "out")
    assert (report["totals"]["written"], report["totals"]["not_reached"], len(report["files"])) == (2, 10, 12)
    assert [file["left_out"] for file in report["files"]].count("not reached, because the run was interrupted") == 10
    before = (tmp_path / "out" / "00.png").stat().st_mtime_ns

    restored.clear()
    monkeypatch.setattr(files, "read_picture", lambda path: restored.append(path.name) or read(path))
    status, said = restore("in", "-o", "out", "--mode", "aligned", "--skip-existing")
    assert status == 0
    assert "10 faces in 10 of 12 files, 2 left out, see out/report_2.json" in said
    assert "in/00.png: left out: its result is there already" in said
    assert restored == [f"{i:02}.png" for i in range(2, 12)]
    assert (tmp_path / "out" / "00.png").stat().st_mtime_ns == before
    assert len(results_in(tmp_path / "out")) == 12


@pytest.mark.parametrize("flags", [("--ext", "jpg"), ("--side-by-side",)])
def test_options_of_pictures_are_refused_for_films_and_noted_beside_pictures(
    restore: Callable, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    write_video(tmp_path / "film.mp4", 2, with_sound=False)
    PICTURE.save(tmp_path / "a.png")
    status, said = restore("film.mp4", "-o", "out", *flags)
    assert status == 2
    assert said.splitlines() == [
        f"basicsr: error: {flags[0]}: has no effect on films, and no input is a picture. Remove it."
    ]
    assert not (tmp_path / "out").exists()
    assert restore("film.mp4", "-o", "alone", "--mode", "aligned")[0] == 0
    status, said = restore("film.mp4", "a.png", "-o", "out", "--mode", "aligned", *flags)
    assert status == 0
    note = f"{flags[0]} has no effect on a film"
    assert f"film.mp4: {note}" in said
    notes = {file["input"]: file["notes"] for file in report_of(tmp_path / "out")["files"]}
    assert note in notes["film.mp4"]
    assert note not in notes["a.png"]


@pytest.mark.parametrize("most", [1, 4, 7])
def test_a_film_counts_the_faces_that_it_does_not_list(
    restore: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(video, "MOST_REPORTS", most)
    write_video(tmp_path / "film.mp4", 5, with_sound=False)
    status, said = restore("film.mp4", "-o", "out", "--box", "20,20,90,90", "--box", "5000,0,5010,10")
    assert status == 1  # of each frame one face is restored, one lies outside
    assert "5 faces in 1 of 1 files, 5 faces left as they were" in said
    report = report_of(tmp_path / "out")
    (file,) = report["files"]
    frames = most // 2
    assert (file["frames"], file["listed_frames"], len(file["faces"])) == (5, frames, 2 * frames)
    assert (report["totals"]["faces"], report["totals"]["failed_faces"]) == (5, 5)
    note = (
        f"the faces of the first {frames} of 5 frames are listed one by one, the faces of the other frames are only "
        "counted"
    )
    assert note in file["notes"]
    assert f"film.mp4: {note}" in said


def test_a_film_whose_faces_are_all_listed_needs_no_note() -> None:
    film = video.Film()
    for _ in range(500):
        film.count([FaceReport((0, 0, 1, 1), None)] * 2)
    assert (film.unlisted(), film.listed_frames, len(film.faces)) == ([], 500, 1000)
    film.count([FaceReport((0, 0, 1, 1), None)])
    film.count([])
    assert (film.listed_frames, film.frames, film.restored_faces) == (500, 502, 1001)


def test_of_two_results_only_the_missing_one_is_written(restore: Callable, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("kept")
    assert restore("a.png", "-o", "out", "--side-by-side", "--skip-existing", "--mode", "aligned")[0] == 0
    assert (tmp_path / "out" / "a.png").read_text() == "kept"
    assert cv2.imread(str(tmp_path / "out" / "a_side_by_side.png")).shape == (32, 80, 3)


def test_what_tif_and_bmp_can_not_keep_is_said(restore: Callable, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "Camera"
    Image.fromarray(photo()).save(tmp_path / "a.jpg", exif=exif)
    _, said = restore("a.jpg", "-o", "out", "--ext", "tif", "--mode", "aligned")
    assert ".tif is written without colour profile and EXIF: --ext png keeps them" in said


def test_a_second_name_of_a_file_and_folders_of_a_pattern_are_left_out_and_listed(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "x.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "in" / "y.png").symlink_to(tmp_path / "in" / "x.png")
    folder = find_inputs([str(tmp_path / "in")], tmp_path / "out")
    assert [file.path.name for file in folder.files] == ["x.png"]
    assert folder.left_out == {f"{tmp_path}/in/y.png": f"the same file as {tmp_path}/in/x.png"}
    pattern = find_inputs([str(tmp_path / "in" / "*")], tmp_path / "out")
    assert [file.path.name for file in pattern.files] == ["x.png"]
    assert pattern.left_out == {**folder.left_out, f"{tmp_path}/in/sub/": FOLDER_OF_PATTERN}


def test_a_result_of_another_file_is_not_taken_for_this_ones(restore: Callable, tmp_path: Path) -> None:
    for folder, level in (("a", 0), ("b", 200)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((32, 40, 3), level, np.uint8)).save(tmp_path / folder / "x.png")
    Image.fromarray(photo()).save(tmp_path / "b" / "x.png")
    assert restore("a", "-o", "out", "--mode", "aligned")[0] == 0
    before = (tmp_path / "out" / "x.png").read_bytes()
    status, said = restore("b", "-o", "out", "--mode", "aligned", "--skip-existing")
    assert status == 2
    assert "--skip-existing: out/x.png is there already, and was made from another x.png, not from b/x.png" in said
    Image.fromarray(photo()).save(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "x.png").unlink()
    status, said = restore("a", "-o", "out", "--mode", "aligned", "--skip-existing")
    assert "was made from another x.png, not from a/x.jpg" in said
    assert (tmp_path / "out" / "x.png").read_bytes() == before


def test_two_runs_into_one_folder_lose_nothing(
    restore: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PICTURE.save(tmp_path / "a.png")
    PICTURE.save(tmp_path / "b.png")

    def meanwhile(path: Path) -> object:
        for name in ("a.png", "report.json"):
            (tmp_path / "out" / name).write_text("of another run")
        return read_picture(path)

    monkeypatch.setattr("dfpg_plugin.restoration.files.read_picture", meanwhile)
    status, said = restore("a.png", "b.png", "-o", "out", "--mode", "aligned")
    assert status == 1
    assert "out/a.png: another run has written this file meanwhile" in said
    kept = [(tmp_path / "out" / name).read_text() for name in ("a.png", "report.json")]
    assert kept == ["of another run"] * 2
    assert report_of(tmp_path / "out", "report_2.json")["totals"]["written"] == 1
