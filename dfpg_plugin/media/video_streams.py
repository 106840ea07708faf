"""Copy a film's sound, subtitles, attachments and metadata. Note which of them are lost."""

from pathlib import Path
from typing import TYPE_CHECKING

from dfpg_plugin.checks import UserError

if TYPE_CHECKING:
    import av

# keys of metadata about a file and about the program that wrote the file. These keys are not copied, because the new
# file gets its own
WRITER_KEYS = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration", "bps", "number_of_frames",
    "number_of_bytes", "_statistics_writing_app", "_statistics_writing_date_utc", "_statistics_tags", "vendor_id",
    "handler_name", "alpha_mode",
}  # fmt: skip
COVER = 0x400  # FFmpeg's flag of a stream that is a cover picture


def main_film(source: "av.container.InputContainer") -> "av.VideoStream":
    """Return the first stream of moving pictures. Raises UserError if ``source`` has no such stream."""
    for stream in source.streams.video:
        if not stream.disposition & COVER:
            return stream
    raise UserError("has no moving pictures.")


def copy_streams(
    source: "av.container.InputContainer", target: "av.container.OutputContainer", film: "av.VideoStream"
) -> tuple[dict[int, "av.stream.Stream"], list[str]]:
    """Add a copy of each stream except ``film`` to ``target``, without the stream's packets.

    Return the copies, by the numbers of the copied streams, and notes. The notes tell which streams the target can't
    hold, and which other films are not restored.
    """
    copied, notes = {}, []
    for stream in source.streams:
        if stream.index == film.index:
            continue
        what = f"stream {stream.index} ({_describe(stream)})"
        try:
            if stream.type == "data":
                raise ValueError
            copied[stream.index] = new = target.add_stream_from_template(stream, opaque=True)
        except ValueError:
            # no note on chapter titles and time code: the new file gets such streams from the film's metadata
            if not (stream.type == "data" and (source.chapters() or "timecode" in stream.metadata)):
                notes.append(f"{what} is left out: {Path(target.name).suffix} can't hold it")
            continue
        new.disposition = stream.disposition
        new.metadata.update(copied_metadata(stream.metadata))
        if stream.type == "video" and not stream.disposition & COVER:
            notes.append(f"{what} is copied as it is: only the first film of a file is restored")
    return copied, notes


def container_options(source: "av.container.InputContainer", suffix: str) -> dict[str, str]:
    """Return FFmpeg's options for the target, a file of this suffix.

    FFmpeg writes keys with dots, such as ``com.apple.quicktime.make``, only on request.
    """
    has_dotted_keys = suffix in (".mp4", ".mov", ".m4v") and any("." in key for key in source.metadata)
    return {"movflags": "use_metadata_tags"} if has_dotted_keys else {}


def copied_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Return the metadata that a new file takes over: all but the keys about the old file and its writer."""
    # Matroska appends a language to a key, as in BPS-eng
    return {key: value for key, value in metadata.items() if key.lower().split("-")[0] not in WRITER_KEYS}


def lost_metadata(wanted: dict[str, str], written: Path) -> list[str]:
    """Return a note if the finished file ``written`` lacks keys of ``wanted``, or no note."""
    import av

    with av.open(f"file:{written}") as file:
        found = {key.lower() for key in file.metadata}
    lost = sorted(key for key in wanted if key.lower() not in found)
    return [f"{written.suffix} can't hold this metadata, which is left out: {', '.join(lost)}"] if lost else []


def _describe(stream: "av.stream.Stream") -> str:
    context = stream.codec_context
    return f"{stream.type}, {context.name}" if context is not None else stream.type
