"""The command: what it reads, writes and refuses, and that nothing is ever written over."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from kit import photo

from dfpg_plugin.media.pictures import Picture
from dfpg_plugin.restoration.files import _side_by_side
from dfpg_plugin.restoration.settings import FaceReport


def test_a_photo_a_folder_and_a_pattern(restore: Callable, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.png", "in/deep/b.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), photo())
    status, said = restore("in", "c*.png", "-o", "out", "--side-by-side")
    assert status == 0
    assert "on cpu" in said
    assert "9 faces in 3 of 3 files" in said
    names = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    assert names == [
        "a.png", "a_side_by_side.png", "c.png", "c_side_by_side.png", "deep/b.png", "deep/b_side_by_side.png",
    ]  # fmt: skip
    assert cv2.imread(str(tmp_path / "out" / "a_side_by_side.png")).shape == (400, 1400, 3)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["files"]) == 3
    assert {"box", "score", "landmarks", "seconds", "identity_change", "error"} == set(report["files"][0]["faces"][0])
    assert report["network"]["weights"].endswith("brighten.safetensors")


def test_before_with_its_boxes_lies_to_the_left_of_after_and_both_are_upright() -> None:
    """The pictures are stored lying on their sides, which EXIF's orientation 6 turns to the right."""
    rng = np.random.default_rng(0)
    before, after = (rng.integers(0, 200, (40, 70, 3), np.uint8) for _ in range(2))
    report = FaceReport((10.2, 21, 30, 60.4), None)
    both = _side_by_side(Picture(before, 6), Picture(after, 6), [report])
    assert both.shape == (70, 80, 3)
    np.testing.assert_array_equal(both[:, 40:], np.rot90(after, -1))
    expected = np.rot90(before, -1).copy()
    expected[21, 10:31] = expected[60, 10:31] = (0, 255, 0)
    expected[21:61, 10] = expected[21:61, 30] = (0, 255, 0)
    np.testing.assert_array_equal(both[:, :40], expected)


def test_results_are_not_written_over(restore: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo())
    assert restore("a.png", "-o", "out")[0] == 0
    before = (tmp_path / "out" / "a.png").read_bytes()
    status, said = restore("a.png", "-o", "out")
    assert (status, said.splitlines()[-1]) == (
        2, "basicsr: error: out/a.png is there already. Choose another folder with -o, or allow it: --overwrite. "
        "To go on with what is missing: --skip-existing.",
    )  # fmt: skip
    assert (tmp_path / "out" / "a.png").read_bytes() == before
    assert restore("a.png", "-o", "out", "--overwrite")[0] == 0
    cv2.imwrite(str(tmp_path / "b.png"), photo())
    assert "see out/report_2.json" in restore("b.png", "-o", "out")[1]
    (tmp_path / "out" / "c_side_by_side.png").write_text("mine")
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    status, said = restore("c.png", "-o", "out", "--side-by-side")
    assert status == 2
    assert "out/c_side_by_side.png is there already" in said


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_an_input_is_never_written_over(restore: Callable, tmp_path: Path, flags: list) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo())
    before = (tmp_path / "a.png").read_bytes()
    status, said = restore("a.png", "-o", ".", *flags)
    assert status == 2
    assert "a.png is an input itself" in said
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"some text", "not an image"), (None, "not an image"), (b"", "not an image")],
    ids=["text", "truncated", "empty"],
)
def test_what_is_no_image_is_one_line_and_status_2(
    restore: Callable, tmp_path: Path, content: bytes | None, message: str
) -> None:
    whole = cv2.imencode(".png", photo())[1].tobytes()
    (tmp_path / "a.png").write_bytes(whole[:300] if content is None else content)
    status, said = restore("a.png", "-o", "out")
    assert status == 2
    assert said.splitlines()[-1].startswith("basicsr: error: a.png: ")
    assert message in said
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_detector_that_is_missing_is_one_line_and_status_2(restore: Callable, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), photo())
    status, said = restore("a.png", "b.png", "-o", "out", "--detector", "facexlib", "--detector_weights", tmp_path)
    assert status == 2
    assert said.splitlines()[-1].startswith("basicsr: error: recogniser facexlib: ")
    assert not (tmp_path / "out").exists()


def test_the_threshold_decides_what_counts_as_a_face(restore: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo())
    assert "3 faces in 1 of 1 files" in restore("a.png", "-o", "out", "--threshold", 0.5)[1]
    assert "0 faces in 1 of 1 files" in restore("a.png", "-o", "none", "--threshold", 1.5)[1]
    assert json.loads((tmp_path / "none" / "report.json").read_text())["settings"]["threshold"] == 1.5


def test_one_broken_file_among_others_is_named_and_the_others_are_restored(restore: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo())
    (tmp_path / "b.png").write_text("no image")
    status, said = restore("a.png", "b.png", "-o", "out")
    assert status == 1
    assert "b.png: b.png: not an image" in said
    assert (tmp_path / "out" / "a.png").is_file()


@pytest.mark.parametrize("given", ["nowhere.png", "*.gif", "empty"])
def test_inputs_that_are_not_there(restore: Callable, tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    status, said = restore(given)
    assert status == 2
    assert given in said


def test_a_folder_that_can_not_be_written_is_named(restore: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo())
    (tmp_path / "out").write_text("a file")
    status, said = restore("a.png", "-o", "out")
    assert status == 2
    assert "-o: can't make the folder out" in said
    assert (tmp_path / "out").read_text() == "a file"


def test_a_jpeg_becomes_lossless_unless_asked_otherwise(restore: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), photo())
    assert restore("a.jpg", "-o", "out")[0] == 0
    before, after = cv2.imread(str(tmp_path / "a.jpg")), cv2.imread(str(tmp_path / "out" / "a.png"))
    assert np.array_equal(before[-20:], after[-20:])
    status, said = restore("a.jpg", "-o", "out", "--ext", "jpg")
    assert status == 0
    assert ".jpg is lossy" in said


def write_video(path: Path, count: int, with_sound: bool) -> None:
    """Write a film of a face that moves, 25 frames a second, and of a tone."""
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        sound = target.add_stream("aac", rate=16_000) if with_sound else None
        face = cv2.resize(photo()[20:270, 420:670], (200, 200))
        for i in range(count):
            image = np.full((240, 320, 3), 90, np.uint8)
            image[20:220, 20 + i % 80 : 220 + i % 80] = face
            target.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        target.mux(video.encode(None))
        if sound is not None:
            for i in range(count * 16_000 // 25 // 1024):
                wave = np.sin(np.arange(1024 * i, 1024 * (i + 1)) / 5).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, 1024 * i
                target.mux(sound.encode(frame))
            target.mux(sound.encode(None))


def described(path: Path) -> dict:
    with av.open(str(path)) as source:
        video = source.streams.video[0]
        size, rate = (video.codec_context.width, video.codec_context.height), video.average_rate
        packets = (
            [bytes(p) for p in source.demux(source.streams.audio) if p.dts is not None] if source.streams.audio else []
        )
    with av.open(str(path)) as source:
        times = [round(float(frame.pts * frame.time_base), 4) for frame in source.decode(video=0)]
    return {"size": size, "rate": rate, "times": times, "sound": packets}


@pytest.mark.parametrize("with_sound", [True, False])
def test_a_video_keeps_frames_rate_size_and_sound(restore: Callable, tmp_path: Path, with_sound: bool) -> None:
    write_video(tmp_path / "a.mp4", 20, with_sound)
    status, said = restore("a.mp4", "-o", "out", "--passes", 1)
    assert status == 0, said
    before, after = described(tmp_path / "a.mp4"), described(tmp_path / "out" / "a.mp4")
    assert len(before["times"]) == 20
    assert bool(before["sound"]) == with_sound
    assert after == before
    report = json.loads((tmp_path / "out" / "report.json").read_text())["files"][0]
    assert report["frames"] == 20
    assert len(report["faces"]) >= 15
    assert [p.name for p in (tmp_path / "out").glob(".*")] == []


def test_a_video_keeps_its_colours_and_the_shape_of_its_pixels(restore: Callable, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 128, "yuv420p"
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.sample_aspect_ratio = Fraction(16, 11)
        frame = av.VideoFrame.from_ndarray(np.full((128, 160, 3), (40, 200, 90), np.uint8), format="bgr24")
        for i in range(5):
            new = frame.reformat(format="yuv420p", dst_colorspace=1)
            new.pts = i
            target.mux(video.encode(new))
        target.mux(video.encode(None))
    assert restore("a.mp4", "-o", "out", "--passes", 1)[0] == 0
    found = []
    for path in (tmp_path / "a.mp4", tmp_path / "out" / "a.mp4"):
        with av.open(str(path)) as source:
            stream = source.streams.video[0]
            frame = next(source.decode(video=0))
            tags = (frame.colorspace, frame.color_primaries, frame.color_trc, stream.sample_aspect_ratio)
            found.append((tags, frame.to_ndarray(format="yuv420p").mean(axis=1)))
    assert found[0][0] == found[1][0] == (1, 1, 1, Fraction(16, 11))
    assert np.abs(found[0][1] - found[1][1]).max() <= 1


def test_the_strength_is_applied_to_pictures_and_videos_and_reported(restore: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), np.full((128, 160, 3), 100, np.uint8))
    with av.open(str(tmp_path / "v.mp4"), "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 128, "yuv420p"
        target.mux(video.encode(av.VideoFrame.from_ndarray(np.full((128, 160, 3), 100, np.uint8), format="bgr24")))
        target.mux(video.encode(None))
    assert restore("p.png", "v.mp4", "-o", "out", "--mode", "aligned", "--strength", 0.4)[0] == 0
    assert (cv2.imread(str(tmp_path / "out" / "p.png")) == 110).all()  # 100 + 0.4 * 25.5
    with av.open(str(tmp_path / "out" / "v.mp4")) as source:
        luma = next(source.decode(video=0)).to_ndarray(format="yuv420p")[:128]
    assert np.abs(luma - (16 + 219 * 110 / 255)).max() <= 1.5  # of limited range, rounded twice
    assert json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["strength"] == 0.4


def test_a_strength_out_of_range_is_one_line_and_status_2(restore: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photo())
    status, said = restore("a.png", "-o", "out", "--strength", 1.2)
    assert status == 2
    assert said.splitlines()[-1] == "basicsr: error: strength: expected a number from 0 to 1, got 1.2."
    assert not (tmp_path / "out").exists()


def test_a_video_that_is_none(restore: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    status, said = restore("a.mp4", "-o", "out")
    assert status == 2
    assert "a.mp4: not a video" in said
    assert not list((tmp_path / "out").iterdir())
