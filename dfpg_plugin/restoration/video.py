"""Restore a video frame by frame through PyAV (FFmpeg). Sound, subtitles and metadata are copied."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dfpg_plugin.checks import UserError
from dfpg_plugin.files import new_file_beside, put_in_place, write_errors_explained
from dfpg_plugin.media.video_encoding import Encoding, add_film, choose_encoding
from dfpg_plugin.media.video_streams import container_options, copied_metadata, copy_streams, lost_metadata, main_film
from dfpg_plugin.media.video_times import Times
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.settings import FaceReport

if TYPE_CHECKING:
    import av

ANY_KIND = 0  # FFmpeg's number of a frame of no kind: the encoder decides which frames are key frames
FILE = "file:"  # without this prefix, FFmpeg reads `a:b.mp4` as the protocol `a`
MOST_REPORTS = 1000  # the most faces that a report lists, so memory does not grow with a video
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # numbers of the errors that a full disk or a quota raises
# kinds of files that end with the frame which is decoded last; the frame that is shown last may be another one
BY_DECODING = ("mp4", "mov")
MICROSECONDS = 1_000_000  # a second, in FFmpeg's unit for the duration of a file


@dataclass
class Film:
    """What became of a video."""

    frames: int = 0
    faces: list[FaceReport] = field(default_factory=list)  # at most MOST_REPORTS, of the first listed_frames frames
    listed_frames: int = 0
    restored_faces: int = 0  # in all frames
    failed_faces: int = 0  # in all frames
    notes: list[str] = field(default_factory=list)

    def count(self, faces: list[FaceReport]) -> None:
        """Count a frame and its faces. List its faces if all frames before are listed and the list has room."""
        self.failed_faces += sum(face.error is not None for face in faces)
        self.restored_faces += sum(face.error is None for face in faces)
        if self.listed_frames == self.frames and len(self.faces) + len(faces) <= MOST_REPORTS:
            self.faces += faces
            self.listed_frames += 1
        self.frames += 1

    def unlisted(self) -> list[str]:
        """Return a note if the faces of some frames are only counted, or no note."""
        if self.listed_frames == self.frames:
            return []
        return [
            f"the faces of the first {self.listed_frames} of {self.frames} frames are listed one by one, the faces of "
            "the other frames are only counted"
        ]


def restore_video(restorer: DFPGRestorer, path: Path, output: Path, replace: bool = True) -> Film:
    """Restore a video; return the numbers of its frames and faces, and a note on everything that is not kept.

    Pixels away from faces are changed by the encoder only. These stay if the encoder and the file's kind can hold them:
    size, time stamps, depth, range, colours, rotation, sound, subtitles, attachments, chapters and metadata. The file
    is written beside ``output`` and renamed when it is whole. Raises UserError, naming the file, if PyAV is missing, if
    the file is no video, if the result can't be written, or if ``output`` is there and may not be replaced.
    """
    if find_spec("av") is None:
        raise UserError(f"{path}: videos need PyAV. Run: pip install av")
    import av

    with write_errors_explained(output), new_file_beside(output, output.suffix) as (temporary, number):
        try:
            film = _restore_into(restorer, path, temporary)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            raise UserError(f"{path}: not a video that can be read and written ({error}).") from error
        os.fsync(number)
        put_in_place(temporary, output, replace)
    if path.suffix.lower() != output.suffix:
        film.notes.append(f"{path.suffix or 'a file without a suffix'} is written as {output.suffix}")
    return film


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
    total = _expected_frames(video)
    with tqdm(total=total, unit="frame", desc=Path(source.name).name, leave=False, disable=None) as bar:
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
    rest = encoded.encode(None)
    if rest and target.format.name in BY_DECODING:
        rest[-1].duration = max(rest, key=lambda packet: packet.pts).duration
    target.mux(rest)
    film.notes += [*times.notes(), *film.unlisted()]
    return film


def _expected_frames(video: "av.VideoStream") -> int | None:
    """Return how many frames a film has by its file, or an estimate. Return None if the file tells too little."""
    if video.frames or not video.average_rate:
        return video.frames or None
    container_seconds = (video.container.duration or 0) / MICROSECONDS
    seconds = video.duration * video.time_base if video.duration else container_seconds
    return round(seconds * video.average_rate) or None


def _decoded(packet: "av.Packet", film: Film) -> Iterator["av.VideoFrame"]:
    """Decode a packet. Skip a damaged packet, as players do, and note the first one."""
    import av

    try:
        yield from packet.decode()
    except av.InvalidDataError:
        if not any("damaged" in note for note in film.notes):
            film.notes.append(f"a damaged part after frame {film.frames} is left out, and so is any later damaged part")


def _restored(restorer: DFPGRestorer, frame: "av.VideoFrame", chosen: Encoding, film: Film) -> "av.VideoFrame":
    """Return a frame for the encoder, with restored faces. Count the frame and its faces."""
    layout = chosen.layout
    if not layout.same_kind(frame) and not any("other frames" in note for note in film.notes):
        found = f"{frame.width}x{frame.height} {frame.format.name}"
        film.notes.append(
            f"from frame {film.frames + 1} on there are other frames, {found}: they are converted to "
            f"{layout.width}x{layout.height} {layout.pixel_format}, like the first frame"
        )
    new = layout.conform(frame)
    new.duration = frame.duration
    before = layout.picture(new)
    restored = restorer.restore_picture(before)
    if restored.picture is not before:
        layout.add_change(new, before, restored.picture)
    film.count(restored.faces)
    new.pict_type = ANY_KIND  # otherwise the encoder repeats the kinds of the source's frames
    return new
