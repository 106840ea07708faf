"""Restore a video frame by frame, all else of it copied as it is, through PyAV (FFmpeg)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import new_file_beside
from dfpg_plugin.media.video_encoding import Encoding, add_film, choose_encoding
from dfpg_plugin.media.video_streams import container_options, copied_metadata, copy_streams, lost_metadata, main_film
from dfpg_plugin.media.video_times import Times
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import FaceReport

if TYPE_CHECKING:
    import av

ANY_KIND = 0  # FFmpeg's number: an encoder decides which frames stand alone
FILE = "file:"  # else FFmpeg takes a colon in a name for that of a protocol
MOST_REPORTS = 1000  # faces that a report lists: memory does not grow with a video


@dataclass
class Film:
    """What became of a video."""

    frames: int = 0
    faces: list[FaceReport] = field(default_factory=list)  # of the first frames, at most MOST_REPORTS
    listed_frames: int = 0  # the first frames, whose faces these are
    restored_faces: int = 0  # of all frames
    failed_faces: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, faces: list[FaceReport]) -> None:
        """Count a frame and its faces; list them as long as those of all frames so far can be listed."""
        self.failed_faces += sum(face.error is not None for face in faces)
        self.restored_faces += sum(face.error is None for face in faces)
        if self.listed_frames == self.frames and len(self.faces) + len(faces) <= MOST_REPORTS:
            self.faces += faces
            self.listed_frames += 1
        self.frames += 1

    def unlisted(self) -> list[str]:
        """Return a note of the frames whose faces are counted only, or none."""
        if self.listed_frames == self.frames:
            return []
        return [
            f"the faces of the first {self.listed_frames} of {self.frames} frames are listed one by one, those of the "
            "others are counted only"
        ]


def restore_video(restorer: DFPGRestorer, path: Path, output: Path) -> Film:
    """Restore a video; return what became of it, with a note of everything that is not kept.

    Pixels away from faces are changed by the encoder only. Size, time stamps, depth, range, colours, rotation, sound,
    subtitles, attachments, chapters and metadata stay where the encoder and the file's kind hold them. The file is
    written beside ``output`` and renamed when it is whole. Raises UserError, naming the file, for what is no video or
    can't be written.
    """
    if find_spec("av") is None:
        raise UserError(f"{path}: videos need PyAV. Run: pip install av")
    import av

    try:
        with new_file_beside(output, output.suffix) as (temporary, number):
            film = _restore_into(restorer, path, temporary)
            os.fsync(number)
            os.replace(temporary, output)
        if path.suffix.lower() != output.suffix:
            film.notes.append(f"{path.suffix or 'a file without a suffix'} is written as {output.suffix}")
        return film
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a video that can be read and written ({error}).") from error


def _restore_into(restorer: DFPGRestorer, path: Path, output: Path) -> Film:
    import av

    with av.open(f"{FILE}{path}") as source:
        first = _first_frame(source)
    with av.open(f"{FILE}{path}") as source:
        options = container_options(source, output.suffix)
        with av.open(f"{FILE}{output}", "w", container_options=options) as target:
            film = _transcode(restorer, source, target, first)
        film.notes += lost_metadata(copied_metadata(source.metadata), output)
    return film


def _first_frame(source: "av.container.InputContainer") -> "av.VideoFrame":
    first = next(source.decode(main_film(source)), None)
    if first is None:
        raise UserError("has no frame.")
    return first


def _transcode(
    restorer: DFPGRestorer,
    source: "av.container.InputContainer",
    target: "av.container.OutputContainer",
    first: "av.VideoFrame",
) -> Film:
    video = main_film(source)
    chosen = choose_encoding(video, first, Path(target.name).suffix)
    encoded = add_film(target, video, first, chosen)
    encoded.metadata.update(copied_metadata(video.metadata))
    copied, notes = copy_streams(source, target, video)
    target.metadata.update(copied_metadata(source.metadata))
    target.set_chapters(source.chapters())
    film, times = Film(notes=[*chosen.notes, *notes]), Times(video)
    wanted = [video, *(stream for stream in source.streams if stream.index in copied and stream.type != "attachment")]
    with tqdm(total=_frames(video), unit="frame", desc=Path(source.name).name, leave=False, disable=None) as bar:
        for packet in times.in_order(source.demux(wanted)):
            if packet.stream.index in copied:
                if packet.size:
                    packet.stream = copied[packet.stream.index]
                    target.mux(packet)
                continue
            for frame in _decoded(packet, film):
                times.mend(frame)
                target.mux(encoded.encode(_restored(restorer, frame, chosen, film)))
                bar.update()
    target.mux(encoded.encode(None))
    film.notes += [*times.notes(), *film.unlisted()]
    return film


def _frames(video: "av.VideoStream") -> int | None:
    """Return about how many frames a film has; None where its file does not say."""
    if video.frames or not video.average_rate:
        return video.frames or None
    seconds = (
        video.duration * video.time_base if video.duration else (video.container.duration or 0) / 1_000_000
    )  # FFmpeg's microseconds
    return round(seconds * video.average_rate) or None


def _decoded(packet: "av.Packet", film: Film) -> Iterator["av.VideoFrame"]:
    """Decode a packet; note the first that is damaged, and go on as players do."""
    import av

    try:
        yield from packet.decode()
    except av.InvalidDataError:
        if not any("damaged" in note for note in film.notes):
            film.notes.append(f"a damaged part after frame {film.frames}, and any later one, is left out")


def _restored(restorer: DFPGRestorer, frame: "av.VideoFrame", chosen: Encoding, film: Film) -> "av.VideoFrame":
    """Return a frame for the encoder, its faces restored, and count it."""
    layout = chosen.layout
    if not layout.same_kind(frame) and not any("other frames" in note for note in film.notes):
        found = f"{frame.width}x{frame.height} {frame.format.name}"
        film.notes.append(
            f"from frame {film.frames + 1} on it has other frames, {found}: they are made "
            f"{layout.width}x{layout.height} {layout.pixel_format} as the first is"
        )
    new = layout.conform(frame)
    before = layout.picture(new)
    restored = restorer.restore_picture(before)
    if restored.picture is not before:
        layout.add_change(new, before, restored.picture)
    film.count(restored.faces)
    new.pict_type = ANY_KIND  # else the encoder repeats the source's kinds of frames
    return new
