"""Restore a video frame by frame, its sound copied as it is, through PyAV (FFmpeg)."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dfpg_plugin.checks import UserError
from dfpg_plugin.restoration.pictures import Picture
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import FaceReport

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
CODECS = {".webm": "libvpx-vp9"}  # else H.264
QUALITY = {"crf": "16"}
MOST_REPORTS = 1000  # faces that a report lists: memory does not grow with a video
FULL_CHROMA = "yuv444p"  # (3,H,W): luma and two chromas of the same size, limited range
LIMITED_RANGE = 1  # FFmpeg's number for it
UNSPECIFIED = 2  # FFmpeg's number for colours of which a file says nothing


def restore_video(restorer: DFPGRestorer, path: Path, output: Path) -> tuple[int, list[FaceReport], int]:
    """Restore a video; return how many frames it has, its first faces' reports, and how many faces failed.

    Size, frame rate, time stamps, colours and sound stay; frames that are stored on their side are written upright. The
    file is written beside ``output`` and renamed when it is whole. Raises UserError, naming the file, for what is no
    video or can't be written.
    """
    if find_spec("av") is None:
        raise UserError(f"{path}: videos need PyAV. Run: pip install av")
    import av

    temporary = output.with_name(f".{output.stem}.part{output.suffix}")
    try:
        with av.open(str(path)) as source:
            first = next(source.decode(video=0), None)
        if first is None:
            raise UserError(f"{path}: has no frame.")
        with av.open(str(path)) as source, av.open(str(temporary), "w") as target:
            counted = _transcode(restorer, source, target, first, CODECS.get(output.suffix, "libx264"))
        temporary.replace(output)
        return counted
    except UserError:
        raise
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a video that can be read and written ({error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def _transcode(
    restorer: DFPGRestorer,
    source: "av.container.InputContainer",
    target: "av.container.OutputContainer",
    first: "av.VideoFrame",
    codec: str,
) -> tuple[int, list[FaceReport], int]:
    import av

    (video, *_) = source.streams.video
    sound = list(source.streams.audio)
    turns = turns_of(first)
    encoded = _add_stream(target, video, first, turns, codec)
    copied = {stream.index: target.add_stream_from_template(stream) for stream in sound}
    count = failed = 0
    reports: list[FaceReport] = []
    for packet in source.demux(video, *sound):
        if packet.stream.index in copied:
            if packet.dts is not None:
                packet.stream = copied[packet.stream.index]
                target.mux(packet)
            continue
        for frame in packet.decode():
            seen = frame.reformat(format="bgr24", src_colorspace=_space(first)).to_ndarray()
            upright = np.ascontiguousarray(np.rot90(seen, turns))
            restored = restorer.restore_picture(Picture(upright))
            # only the change goes by way of RGB, for that way rounds
            change = _luma_and_chroma(restored.picture.pixels, first) - _luma_and_chroma(upright, first)
            stored = frame.reformat(format=FULL_CHROMA, src_colorspace=_space(first), dst_colorspace=_space(first))
            planes = np.rot90(stored.to_ndarray(), turns, axes=(1, 2)) + change
            made = av.VideoFrame.from_ndarray(planes.clip(0, 255).astype(np.uint8), format=FULL_CHROMA)
            new = made.reformat(format=encoded.pix_fmt)
            new.pts, new.time_base = frame.pts, frame.time_base
            target.mux(encoded.encode(new))
            count += 1
            failed += sum(face.error is not None for face in restored.faces)
            reports += restored.faces[: MOST_REPORTS - len(reports)]
    target.mux(encoded.encode(None))
    return count, reports, failed


def _add_stream(
    target: "av.container.OutputContainer", video: "av.VideoStream", first: "av.VideoFrame", turns: int, codec: str
) -> "av.VideoStream":
    """Add a stream for frames like the first one, turned."""
    width, height = (first.width, first.height) if turns % 2 == 0 else (first.height, first.width)
    encoded = target.add_stream(codec, rate=video.average_rate or video.guessed_rate, options=QUALITY)
    encoded.width, encoded.height = width, height
    encoded.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"  # whose colours are of 2x2 px
    encoded.time_base = video.time_base
    context = encoded.codec_context
    context.time_base = video.time_base
    if ratio := video.sample_aspect_ratio:
        context.sample_aspect_ratio = ratio if turns % 2 == 0 else 1 / ratio
    context.colorspace, context.color_range = first.colorspace, LIMITED_RANGE
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    return encoded


def _luma_and_chroma(pixels: NDArray[np.uint8], like: "av.VideoFrame") -> NDArray[np.int16]:
    """Return uint8 BGR (H,W,3) as FULL_CHROMA, (3,H,W), by the colour space of a frame."""
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24")
    return frame.reformat(format=FULL_CHROMA, dst_colorspace=_space(like)).to_ndarray().astype(np.int16)


def turns_of(frame: "av.VideoFrame") -> int:
    """Return by how many right angles, counterclockwise, a stored frame has to be turned to be upright."""
    return round(frame.rotation / 90) % 4


def _space(frame: "av.VideoFrame") -> int | None:
    return None if frame.colorspace == UNSPECIFIED else int(frame.colorspace)
