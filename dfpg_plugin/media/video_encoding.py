"""Choose and set up the encoder of a film, and list what the encoder can't keep."""

import os
import struct
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING

from dfpg_plugin.media.video_frames import (
    FULL,
    RGB,
    Layout,
    display_matrix,
    is_rgb,
    matrix_of,
    orientation_of,
    range_of,
    side_data_of,
)

if TYPE_CHECKING:
    import av

QUALITY = {"crf": "16"}  # the encoders' quality; a lower number loses less
H264, H264_RGB, HEVC, VP9, AV1 = "libx264", "libx264rgb", "libx265", "libvpx-vp9", "libsvtav1"
EVEN_ONLY = (H264, HEVC)  # need even sizes if one colour is stored for 2x2 px
HDR = {16: "PQ", 18: "HLG"}  # FFmpeg's numbers of transfer curves
# pixel formats that are never chosen: with transparency, or with several kinds of values in a plane
LEFT_OUT = ("nv12", "nv16", "nv20le", "nv21", "yuva420p", "yuva422p", "yuva444p", "yuva420p10le", "gbrap", "bgr0")
LOST = {  # side data of a frame, by FFmpeg's names, that no encoder here writes
    "DYNAMIC_HDR_PLUS": "HDR10+'s dynamic metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid's dynamic metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision's metadata",
    "SPHERICAL": "the mark of a 360-degree film",
    "STEREO3D": "the mark of a stereoscopic film",
    "ICC_PROFILE": "the colour profile",
}
MASTERING, LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"


class Loss(IntFlag):
    """What a change of the pixel format loses: FFmpeg's ``FF_LOSS_*`` (libavutil/pixdesc.h)."""

    RESOLUTION = 1
    DEPTH = 2
    COLORSPACE = 4
    ALPHA = 8
    CHROMA = 32


@dataclass(frozen=True)
class Encoding:
    """An encoder with its options, the layout of its frames, and notes on what is lost."""

    encoder: str
    options: dict[str, str]
    layout: Layout
    interlaced: bool
    notes: list[str] = field(default_factory=list)


def choose_encoding(video: "av.VideoStream", first: "av.VideoFrame", suffix: str) -> Encoding:
    """Choose the encoder that keeps the most of frames like ``first``. Raises UserError for unknown colours."""
    encoder, pixel_format, notes = _choose_format(video, first, _encoders(video, first, suffix))
    orientation = orientation_of(display_matrix(first))
    layout = Layout(first.width, first.height, pixel_format, matrix_of(first), range_of(first), orientation)
    carried = side_data_of(first)
    options = {**QUALITY, **_parameters(encoder, carried)}
    notes += [f"{what} is left out" for name, what in LOST.items() if name in carried]
    if encoder not in (H264, HEVC) and carried.keys() & {MASTERING, LIGHT}:
        notes.append(f"the brightness of HDR's screen is left out: {encoder} can't store it")
    if first.color_trc in HDR:
        notes.append(f"HDR ({HDR[first.color_trc]}) is kept, but the network has learnt from photographs without it")
    interlaced = first.interlaced_frame and encoder == H264
    if first.interlaced_frame and not interlaced:
        notes.append(f"the film is interlaced, which {encoder} does not mark: players will show combed edges")
    return Encoding(encoder, options, layout, interlaced, notes)


def add_film(
    target: "av.container.OutputContainer", video: "av.VideoStream", first: "av.VideoFrame", chosen: Encoding
) -> "av.VideoStream":
    """Add a video stream for frames like ``first``. It keeps the film's colours, pixel shape, rotation and times."""
    from av.codec.context import Flags

    if chosen.encoder == AV1:
        os.environ.setdefault("SVT_LOG", "1")  # the only way to keep SVT-AV1 from writing to the terminal
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
    context.flags |= int(Flags.frame_duration)  # without this, the last frame has the usual duration
    if chosen.interlaced:
        context.flags |= int(Flags.interlaced_dct | Flags.interlaced_me)
    if chosen.encoder == HEVC and target.format.name in ("mp4", "mov"):
        context.codec_tag = "hvc1"  # Apple's players accept only this tag
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
    """Return the encoder that loses least (the first one of equals), its pixel format, and notes on the losses."""
    from av.codec.codec import find_best_pix_fmt_of_list

    given, has_alpha = first.format.name, _has_alpha(video, first)
    candidates = []
    for encoder in encoders:
        best, flags = find_best_pix_fmt_of_list(_formats(encoder, first), given, has_alpha=has_alpha)
        loss = int(flags)  # PyAV 17 gives a number, later versions a flag of their own
        if best is None:
            continue
        num_losses = (loss & ~Loss.ALPHA).bit_count()  # no encoder here writes transparency
        bits = _bits(best.name) if loss & Loss.DEPTH else 0
        candidates.append((num_losses, -bits, encoder, best.name, loss))
    _, _, encoder, chosen, loss = min(candidates, key=lambda candidate: candidate[:2])
    notes = []
    if has_alpha:
        notes.append(f"transparency is left out: {encoder} writes none")
    descriptions = {
        Loss.DEPTH: f"{first.format.components[0].bits} bits become {_bits(chosen)}",
        Loss.RESOLUTION: "its colours become coarser",
        Loss.CHROMA: "its colours become coarser",
        Loss.COLORSPACE: "its colours are rounded",
    }
    lost = sorted({text for kind, text in descriptions.items() if loss & kind})
    if lost:
        notes.append(f"{given} is written as {chosen}, because {encoder} takes no {given}: {', '.join(lost)}")
    elif (first.width % 2 or first.height % 2) and _is_finer(chosen, first):
        size = f"{first.width}x{first.height} px"
        notes.append(
            f"{given} is written as {chosen}, because {encoder} takes no {given} of {size}: nothing is lost, but some "
            "players don't show it"
        )
    return encoder, chosen, notes


def _formats(encoder: str, first: "av.VideoFrame") -> list[str]:
    """Return the pixel formats, without transparency, in which an encoder keeps a frame's size and range."""
    import av

    names = [f.name for f in av.Codec(encoder, "w").video_formats or [] if f.name not in LEFT_OUT]
    names = [name for name in names if name == first.format.name or not name.startswith("yuvj")]
    if encoder not in EVEN_ONLY:
        return names
    if first.width % 2:
        return [name for name in names if "420" not in name and "422" not in name]
    if first.height % 2:
        return [name for name in names if "420" not in name]
    return names


def _is_finer(pixel_format: str, first: "av.VideoFrame") -> bool:
    """Tell whether a format stores the colour of a frame of this size in more places than the frame's own format."""
    import av

    def places(video_format: "av.VideoFormat") -> int:
        return video_format.chroma_width(first.width) * video_format.chroma_height(first.height)

    return places(av.VideoFormat(pixel_format)) > places(first.format)


def _has_alpha(video: "av.VideoStream", first: "av.VideoFrame") -> bool:
    """Tell whether a film has transparency. VP9's decoder drops it, so the file's ``alpha_mode`` counts too."""
    is_named = first.format.name.startswith(("yuva", "gbrap", "ya", "rgba", "bgra", "argb", "abgr"))
    return is_named or video.metadata.get("alpha_mode", video.metadata.get("ALPHA_MODE")) == "1"


def _bits(pixel_format: str) -> int:
    import av

    return av.VideoFormat(pixel_format).components[0].bits


def _parameters(encoder: str, carried: dict[str, bytes]) -> dict[str, str]:
    """Return x264's or x265's options for HDR10's side data. x265 is also told not to write to the terminal."""
    if encoder not in (H264, HEVC):
        return {}
    if encoder == HEVC:
        name, display, light, parameters = "x265-params", "master-display", "max-cll", ["log-level=error"]
    else:
        name, display, light, parameters = "x264-params", "mastering-display", "cll", []
    if MASTERING in carried:
        parameters.append(f"{display}={_mastering_display(carried[MASTERING])}")
    if LIGHT in carried:
        brightest_pixel, brightest_frame = struct.unpack("=2I", carried[LIGHT][:8])
        parameters.append(f"{light}={brightest_pixel},{brightest_frame}")
    return {name: ":".join(parameters)} if parameters else {}


def _mastering_display(content: bytes) -> str:
    """Return FFmpeg's AVMasteringDisplayMetadata for x264 and x265: colours in 0.00002, brightness in 0.0001 cd/m2."""
    numbers = struct.unpack("=20i", content[:80])
    values = [top / max(1, bottom) for top, bottom in zip(numbers[::2], numbers[1::2], strict=True)]
    red_x, red_y, green_x, green_y, blue_x, blue_y, white_x, white_y = (round(50_000 * v) for v in values[:8])
    darkest, brightest = (round(10_000 * v) for v in values[8:])
    primaries = f"G({green_x},{green_y})B({blue_x},{blue_y})R({red_x},{red_y})"
    return f"{primaries}WP({white_x},{white_y})L({brightest},{darkest})"
