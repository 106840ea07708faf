"""Which encoder takes a film's frames, how it is set, and what it can't keep."""

import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dfpg_plugin.restoration.video_frames import (
    FULL,
    RGB,
    Layout,
    display_matrix,
    is_rgb,
    matrix_of,
    orientation_of,
    range_of,
)

if TYPE_CHECKING:
    import av

QUALITY = {"crf": "16"}
H264, H264_RGB, HEVC, VP9, AV1 = "libx264", "libx264rgb", "libx265", "libvpx-vp9", "libsvtav1"
EVEN_ONLY = (H264, HEVC)  # where colours are of 2x2 px, sizes have to be even
HDR = {16: "PQ", 18: "HLG"}  # FFmpeg's numbers of transfer curves
LEFT_OUT = ("nv12", "nv16", "nv20le", "nv21", "yuva420p", "yuva422p", "yuva444p", "yuva420p10le", "gbrap", "bgr0")
LOST = {  # FFmpeg's names of what a frame carries beside its pixels: what it is
    "DYNAMIC_HDR_PLUS": "HDR10+'s dynamic metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid's dynamic metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision's metadata",
    "SPHERICAL": "the mark of a 360-degree film",
    "STEREO3D": "the mark of a stereoscopic film",
    "ICC_PROFILE": "the colour profile",
}
MASTERING, LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"


@dataclass(frozen=True)
class Encoding:
    """An encoder, how it is set, and what is said of it."""

    encoder: str
    options: dict[str, str]
    layout: Layout
    interlaced: bool
    notes: list[str] = field(default_factory=list)


def choose_encoding(video: "av.VideoStream", first: "av.VideoFrame", suffix: str) -> Encoding:
    """Choose the encoder that keeps the most of frames like the first. Raises UserError for unreadable colours."""
    encoder, pixel_format, notes = _choose_format(video, first, _encoders(video, first, suffix))
    layout = Layout(
        first.width, first.height, pixel_format, matrix_of(first), range_of(first),
        orientation_of(display_matrix(first)),
    )  # fmt: skip
    carried = {data.type.name: bytes(data) for data in first.side_data}
    options = {**QUALITY, **_parameters(encoder, carried)}
    notes += [f"{what} is left out" for name, what in LOST.items() if name in carried]
    if encoder not in (H264, HEVC) and carried.keys() & {MASTERING, LIGHT}:
        notes.append(f"the brightness of HDR's screen is left out, for {encoder} is not told it")
    if first.color_trc in HDR:
        notes.append(f"HDR ({HDR[first.color_trc]}) is kept, but the network has learnt from photographs without it")
    interlaced = first.interlaced_frame and encoder == H264
    if first.interlaced_frame and not interlaced:
        notes.append(f"the film is interlaced, which {encoder} does not mark: players will show combed edges")
    return Encoding(encoder, options, layout, interlaced, notes)


def add_film(
    target: "av.container.OutputContainer", video: "av.VideoStream", first: "av.VideoFrame", chosen: Encoding
) -> "av.VideoStream":
    """Add a stream for frames like the first one, with its colours, shape of pixels and rotation."""
    from av.codec.context import Flags

    if chosen.encoder == AV1:
        os.environ.setdefault("SVT_LOG", "1")  # nothing else keeps it from writing to the terminal
    rate = video.average_rate or video.guessed_rate
    encoded = target.add_stream(chosen.encoder, rate=rate, options=chosen.options)
    encoded.width, encoded.height, encoded.pix_fmt = first.width, first.height, chosen.layout.pixel_format
    encoded.time_base = video.time_base
    context = encoded.codec_context
    context.time_base = video.time_base
    if ratio := video.sample_aspect_ratio:
        context.sample_aspect_ratio = ratio
    rgb = is_rgb(first.format)
    context.colorspace = RGB if rgb else first.colorspace
    context.color_range = FULL if chosen.layout.range == FULL else first.color_range
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    if chosen.interlaced:
        context.flags |= int(Flags.interlaced_dct | Flags.interlaced_me)
    if chosen.encoder == HEVC and target.format.name in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # Apple's players know no other
    encoded.disposition = video.disposition
    encoded.set_display_matrix(display_matrix(first))
    return encoded


def _encoders(video: "av.VideoStream", first: "av.VideoFrame", suffix: str) -> tuple[str, ...]:
    if suffix == ".webm":
        return VP9, AV1
    if video.codec_context.name == "hevc" or first.color_trc in HDR:
        return (H264, HEVC) if first.interlaced_frame else (HEVC, H264, H264_RGB)
    return H264, H264_RGB, HEVC


def _choose_format(
    video: "av.VideoStream", first: "av.VideoFrame", encoders: tuple[str, ...]
) -> tuple[str, str, list[str]]:
    """Return the first encoder that keeps every pixel, or the one that loses least; its format; and what is said."""
    from av.codec.codec import PixFmtLoss, find_best_pix_fmt_of_list

    seen = first.format.name
    found = []
    for encoder in encoders:
        best, loss = find_best_pix_fmt_of_list(_formats(encoder, first), seen, has_alpha=_has_alpha(video, first))
        if best is None:
            continue
        losses = bin(int(loss) & ~int(PixFmtLoss.ALPHA)).count("1")
        found.append(((losses, -_bits(best.name) if loss & PixFmtLoss.DEPTH else 0), encoder, best.name, loss))
    _, encoder, chosen, loss = min(found, key=lambda choice: choice[0])
    notes = []
    if _has_alpha(video, first):
        notes.append(f"transparency is left out, for {encoder} writes none")
    words = {
        PixFmtLoss.DEPTH: f"{first.format.components[0].bits} bits become {_bits(chosen)}",
        PixFmtLoss.RESOLUTION: "its colours become coarser",
        PixFmtLoss.CHROMA: "its colours become coarser",
        PixFmtLoss.COLORSPACE: "its colours are rounded",
    }
    lost = sorted({text for kind, text in words.items() if loss & kind})
    if lost:
        notes.append(f"{seen} is written as {chosen}, for {encoder} takes no {seen}: {', '.join(lost)}")
    elif (first.width % 2 or first.height % 2) and _is_finer(chosen, first):
        size = f"{first.width}x{first.height} px"
        notes.append(
            f"{seen} is written as {chosen}, for {encoder} takes no {seen} of {size}: nothing is lost, but some "
            "players don't show it"
        )
    return encoder, chosen, notes


def _formats(encoder: str, first: "av.VideoFrame") -> list[str]:
    """Return the formats in which an encoder keeps a frame's size and range, without transparency."""
    import av

    names = [f.name for f in av.Codec(encoder, "w").video_formats or [] if f.name not in LEFT_OUT]
    names = [name for name in names if name == first.format.name or not name.startswith("yuvj")]
    if encoder not in EVEN_ONLY:
        return names
    even_width, even_height = first.width % 2 == 0, first.height % 2 == 0
    return [n for n in names if ("420" not in n or even_width & even_height) and ("422" not in n or even_width)]


def _is_finer(pixel_format: str, first: "av.VideoFrame") -> bool:
    """Return whether a format has more numbers of colour than a frame of this size."""
    import av

    width, height = first.width, first.height
    of = av.VideoFormat(pixel_format)
    return of.chroma_width(width) * of.chroma_height(height) > (
        first.format.chroma_width(width) * first.format.chroma_height(height)
    )


def _has_alpha(video: "av.VideoStream", first: "av.VideoFrame") -> bool:
    """Return whether a film is transparent in places. VP9's decoder leaves transparency out, its file says so."""
    name = first.format.name
    letters = name.startswith(("yuva", "gbrap", "ya", "rgba", "bgra", "argb", "abgr"))
    return letters or video.metadata.get("alpha_mode", video.metadata.get("ALPHA_MODE")) == "1"


def _bits(pixel_format: str) -> int:
    import av

    return av.VideoFormat(pixel_format).components[0].bits


def _parameters(encoder: str, carried: dict[str, bytes]) -> dict[str, str]:
    """Return options for x264 and x265: HDR10's numbers; x265 writes to the terminal unless it is told not to."""
    if encoder not in (H264, HEVC):
        return {}
    name, screen, light = ("x265-params", "master-display", "max-cll") if encoder == HEVC else (
        "x264-params", "mastering-display", "cll",
    )  # fmt: skip
    given = ["log-level=error"] if encoder == HEVC else []
    if MASTERING in carried:
        given.append(f"{screen}={_mastering(carried[MASTERING])}")
    if LIGHT in carried:
        given.append("{}={},{}".format(light, *struct.unpack("=2I", carried[LIGHT][:8])))
    return {name: ":".join(given)} if given else {}


def _mastering(content: bytes) -> str:
    """Return FFmpeg's AVMasteringDisplayMetadata as x264 and x265 read it: in 0.00002 and 0.0001 cd/m2."""
    numbers = struct.unpack("=22i", content[:88])
    values = [top / max(1, bottom) for top, bottom in zip(numbers[0:20:2], numbers[1:20:2], strict=True)]
    colours = [(round(50_000 * x), round(50_000 * y)) for x, y in zip(values[:8:2], values[1:8:2], strict=True)]
    red, green, blue, white = colours
    least, most = (round(10_000 * value) for value in values[8:])
    points = zip(("G", "B", "R", "WP"), (green, blue, red, white), strict=True)
    return "".join(f"{name}({x},{y})" for name, (x, y) in points) + f"L({most},{least})"
