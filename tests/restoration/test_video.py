"""Videos: what is kept, what is said, and that pixels away from faces are changed by the encoder only."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from dfpg_plugin.media.video_files import suffix_of_result
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import Settings
from dfpg_plugin.restoration.video import restore_video

WIDTH, HEIGHT = 128, 64
TICK = Fraction(1, 25)
BOX = (88, 4, 112, 28)  # of the face
INSIDE, AWAY = np.s_[14:18, 98:102], np.s_[:, :48]
QUIET = {"libx265": {"x265-params": "log-level=error"}}
NOBODY = Settings(threshold=2.0, recogniser=None)
SOMEBODY = Settings(boxes=[BOX], recogniser=None)


@dataclass
class Kind:
    """A kind of film."""

    suffix: str
    encoder: str
    pixel_format: str  # as it is decoded
    matrix: int = 2  # FFmpeg's numbers: 1 is BT.709, 5 BT.601, 9 BT.2020
    range: int = 1  # 1 limited, 2 full
    curve: int = 2  # 16 is PQ
    given: str | None = None  # as the encoder is given it
    by: str | None = None  # the encoder that writes it again
    result: str | None = None  # the pixel format of the result, if another
    said: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        return av.VideoFormat(self.pixel_format).components[0].bits

    @property
    def is_rgb(self) -> bool:
        return av.VideoFormat(self.pixel_format).is_rgb

    def rise(self) -> float:
        """Return by how much a tenth of white raises the brightest number, by the definition of the range."""
        steps = 2 ** (self.depth - 8)
        full = 2**self.depth - 1
        return 0.1 * (219 * steps if self.range == 1 and not self.is_rgb else full)


PQ = "HDR (PQ) is kept, but"
KINDS = {
    "h264 limited": Kind(".mp4", "libx264", "yuv420p"),
    "h264 full": Kind(".mp4", "libx264", "yuvj420p", range=2),
    "h264 full BT.709": Kind(".mkv", "libx264", "yuvj420p", matrix=1, range=2),
    "h264 BT.601": Kind(".mov", "libx264", "yuv420p", matrix=5),
    "h264 BT.709": Kind(".m4v", "libx264", "yuv420p", matrix=1),
    "h264 BT.2020": Kind(".mp4", "libx264", "yuv420p", matrix=9),
    "h264 4:2:2": Kind(".mp4", "libx264", "yuv422p", matrix=1),
    "h264 4:4:4": Kind(".mp4", "libx264", "yuv444p", matrix=1),
    "h264 10 bits": Kind(".mp4", "libx264", "yuv420p10le", matrix=1),
    "h264 10 bits full": Kind(".mp4", "libx264", "yuv420p10le", matrix=1, range=2),
    "h264 4:2:2 10 bits": Kind(".mov", "libx264", "yuv422p10le"),
    "h264 4:4:4 10 bits": Kind(".mkv", "libx264", "yuv444p10le"),
    "h264 RGB": Kind(".mp4", "libx264rgb", "gbrp", given="bgr24", range=2),
    "h264 transport stream": Kind(".ts", "libx264", "yuv420p", said=(".ts is written as .mkv",)),
    "hevc": Kind(".mp4", "libx265", "yuv420p", matrix=1),
    "hevc full": Kind(".mp4", "libx265", "yuvj420p", matrix=1, range=2),
    "hevc HDR": Kind(".mkv", "libx265", "yuv420p10le", matrix=9, curve=16, said=(PQ,)),
    "hevc 12 bits": Kind(".mp4", "libx265", "yuv422p12le", matrix=9),
    "hevc RGB": Kind(".mkv", "libx265", "gbrp", range=2),
    "vp9": Kind(".webm", "libvpx-vp9", "yuv420p", matrix=1),
    "vp9 full": Kind(".webm", "libvpx-vp9", "yuv420p", matrix=1, range=2),
    "vp9 4:4:4": Kind(".webm", "libvpx-vp9", "yuv444p"),
    "av1 10 bits": Kind(".webm", "libsvtav1", "yuv420p10le", matrix=1),
    "mpeg4": Kind(".avi", "mpeg4", "yuv420p", by="libx264", said=(".avi is written as .mkv",)),
    "mpeg2": Kind(".mpg", "mpeg2video", "yuv420p", by="libx264", said=(".mpg is written as .mkv",)),
    "wmv": Kind(".wmv", "wmv2", "yuv420p", by="libx264", said=(".wmv is written as .mkv",)),
    "mjpeg": Kind(".avi", "mjpeg", "yuvj422p", matrix=5, range=2, by="libx264", said=(".avi is written as .mkv",)),
    "raw RGB": Kind(".avi", "rawvideo", "bgr24", range=2, by="libx264rgb", result="gbrp", said=(".avi is written",)),
    "ffv1 16 bits": Kind(
        ".mkv", "ffv1", "gbrp16le", range=2, by="libx265", result="gbrp12le",
        said=("gbrp16le is written as gbrp12le, because libx265 takes no gbrp16le: 16 bits become 12",),
    ),
    "ffv1 transparent": Kind(
        ".mkv", "ffv1", "bgra", range=2, by="libx264rgb", result="gbrp",
        said=("transparency is left out: libx264rgb writes none",),
    ),
    "ffv1 grey": Kind(".mkv", "ffv1", "gray", range=0, by="libx264", result="yuvj420p"),
    "ffv1 4:1:0": Kind(".mkv", "ffv1", "yuv410p", by="libx264", result="yuv420p"),
}  # fmt: skip


def numbers(frame: av.VideoFrame, plane: int = 0) -> NDArray:
    """Return a plane's numbers, a view. Of packed formats, (height, width, channels)."""
    component = frame.format.components[0]
    seen = frame.planes[plane]
    rows = np.frombuffer(seen, "<u2" if component.bits > 8 else "u1").reshape(seen.height, -1)
    if frame.format.is_planar or len(frame.format.components) == 1:
        return rows[:, : seen.width]
    channels = len(frame.format.components)
    return rows[:, : channels * seen.width].reshape(seen.height, seen.width, channels)


def ramp(kind: Kind) -> av.VideoFrame:
    """Return a frame whose numbers go from the least to the most, of one grey where the face is."""
    frame = av.VideoFrame(WIDTH, HEIGHT, kind.given or kind.pixel_format)
    most = 2**kind.depth - 1
    for i in range(len(frame.planes)):
        plane = numbers(frame, i)
        if i and not kind.is_rgb:
            plane[:] = (most + 1) // 2
            continue
        values = np.linspace(0, most, WIDTH)
        values[72:] = most * 0.4
        plane[:] = values.astype(plane.dtype).reshape(1, -1, *[1] * (plane.ndim - 2))
        plane[:, 52:68] = np.random.default_rng(0).integers(0, most, plane[:, 52:68].shape)
    frame.colorspace, frame.color_range = (0 if kind.is_rgb else kind.matrix), kind.range
    return frame


def write(path: Path, encoder: str, frames: list, like: Kind, options: dict | None = None, times=None) -> None:
    """Write frames through an encoder."""
    with av.open(str(path), "w") as target:
        video = target.add_stream(encoder, rate=25, options={**QUIET.get(encoder, {}), **(options or {})})
        video.width, video.height, video.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context = video.codec_context
        context.colorspace, context.color_range = (0 if like.is_rgb else like.matrix), like.range
        context.color_trc = like.curve
        context.time_base = TICK
        for i, frame in enumerate(frames):
            frame.pts, frame.time_base, frame.pict_type = (times[i] if times else i), TICK, 0
            target.mux(video.encode(frame))
        target.mux(video.encode(None))


def write_kind(path: Path, kind: Kind) -> None:
    lossless = {"libx264": {"qp": "0"}, "libx264rgb": {"qp": "0"}}.get(kind.encoder, {})
    write(path, kind.encoder, [ramp(kind) for _ in range(3)], kind, lossless)


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as source:
        return list(source.decode(video=0))


@pytest.fixture
def restorers(weights: str) -> tuple[DFPGRestorer, DFPGRestorer]:
    """One that finds nobody, one that is told of a face and brightens it by a tenth."""
    return DFPGRestorer(weights, settings=NOBODY), DFPGRestorer(weights, settings=SOMEBODY)


@pytest.mark.parametrize("name", KINDS)
def test_pixels_away_from_faces_are_the_encoders_and_faces_change_by_the_range(
    tmp_path: Path, restorers: tuple[DFPGRestorer, DFPGRestorer], name: str
) -> None:
    kind = KINDS[name]
    path = tmp_path / f"a{kind.suffix}"
    write_kind(path, kind)
    output, copy = (tmp_path / f"{word}{suffix_of_result(path)}" for word in ("out", "copy"))
    before = decoded(path)
    assert before[0].format.name == kind.pixel_format

    film = restore_video(restorers[0], path, output)
    after = decoded(output)
    assert (film.frames, film.faces, len(after)) == (3, [], 3)
    for note in kind.said:
        assert any(note in said for said in film.notes), film.notes
    assert len(film.notes) == len(kind.said)
    tags = {(frame.format.name, int(frame.color_trc), frame.width, frame.height) for frame in after}
    assert tags == {(kind.result or kind.pixel_format, kind.curve, WIDTH, HEIGHT)}
    if not kind.is_rgb:
        assert {int(frame.colorspace) for frame in after} == {kind.matrix}
        assert {frame.color_range == 2 for frame in after} == {kind.range != 1}

    if kind.result is None:
        encoder = kind.by or kind.encoder
        given = [frame.reformat(format=kind.given or kind.pixel_format) for frame in before]
        write(copy, encoder, given, kind, {"crf": "16"})
        for ours, other in zip(after, decoded(copy), strict=True):
            for plane in range(len(ours.planes)):
                assert np.array_equal(numbers(ours, plane), numbers(other, plane))
    else:
        for ours, other in zip(after, before, strict=True):
            seen = [frame.to_ndarray(format="rgb24").astype(int)[AWAY] for frame in (ours, other)]
            assert np.abs(seen[0] - seen[1]).mean() < 2

    if output.suffix == ".mp4" and (kind.by or kind.encoder) == "libx265":
        with av.open(str(output)) as source:
            assert source.streams.video[0].codec_context.codec_tag == "hvc1"

    film = restore_video(restorers[1], path, output)
    assert len(film.faces) == 3
    scale = 2 ** (av.VideoFormat(kind.result or kind.pixel_format).components[0].bits - kind.depth)
    for ours, other in zip(decoded(output), after, strict=True):
        change = numbers(ours).astype(float) - numbers(other)
        steps = 2 ** (ours.format.components[0].bits - 8)
        assert abs(change[INSIDE].mean() - scale * kind.rise()) < 2 * steps
        assert np.abs(change[AWAY]).mean() < steps
