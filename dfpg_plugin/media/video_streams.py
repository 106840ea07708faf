"""What lies beside the pictures of a film: sound, subtitles, attachments, chapters, title. Copied, or said."""

from pathlib import Path
from typing import TYPE_CHECKING

from dfpg_plugin.checks import UserError

if TYPE_CHECKING:
    import av

# what a writer says of itself and of its own numbers: another one writes its own
OWN_TO_A_FILE = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration", "bps", "number_of_frames",
    "number_of_bytes", "_statistics_writing_app", "_statistics_writing_date_utc", "_statistics_tags", "vendor_id",
    "handler_name", "alpha_mode",
}  # fmt: skip
COVER = 0x400  # FFmpeg's mark of a stream that is a picture of the whole


def main_film(source: "av.container.InputContainer") -> "av.VideoStream":
    """Return the first stream of moving pictures. Raises UserError where a file has none."""
    for stream in source.streams.video:
        if not stream.disposition & COVER:
            return stream
    raise UserError("has no moving pictures.")


def copy_streams(
    source: "av.container.InputContainer", target: "av.container.OutputContainer", film: "av.VideoStream"
) -> tuple[dict[int, "av.stream.Stream"], list[str]]:
    """Add all streams but the film to the target; return them by the source's numbers, and what was left out."""
    copied, notes = {}, []
    for stream in source.streams:
        if stream.index == film.index:
            continue
        what = f"stream {stream.index} ({_described(stream)})"
        try:
            if stream.type == "data":
                raise ValueError
            copied[stream.index] = new = target.add_stream_from_template(stream, opaque=True)
        except ValueError:
            # the chapters' text and time code are written anew, from what is said of the film
            if not (stream.type == "data" and (source.chapters() or "timecode" in stream.metadata)):
                notes.append(f"{what} is left out, for {Path(target.name).suffix} can't hold it")
            continue
        new.disposition = stream.disposition
        new.metadata.update(kept(stream.metadata))
        if stream.type == "video" and not stream.disposition & COVER:
            notes.append(f"{what} is copied as it is: only the first film of a file is restored")
    return copied, notes


def container_options(source: "av.container.InputContainer", suffix: str) -> dict[str, str]:
    """Return how to open the target: QuickTime's own keys, as ``com.apple.quicktime.make``, have to be asked for."""
    own_keys = suffix in (".mp4", ".mov", ".m4v") and any("." in key for key in source.metadata)
    return {"movflags": "use_metadata_tags"} if own_keys else {}


def kept(metadata: dict[str, str]) -> dict[str, str]:
    """Return what is said of a film, without what its writer says of itself."""
    return {key: value for key, value in metadata.items() if key.lower().split("-")[0] not in OWN_TO_A_FILE}


def lost_metadata(wanted: dict[str, str], written: Path) -> list[str]:
    """Return a note of the keys that a finished file does not have, or none."""
    import av

    with av.open(f"file:{written}") as file:
        found = {key.lower() for key in file.metadata}
    lost = sorted(key for key in wanted if key.lower() not in found)
    return [f"{written.suffix} can't hold this metadata, which is left out: {', '.join(lost)}"] if lost else []


def _described(stream: "av.stream.Stream") -> str:
    context = stream.codec_context
    return f"{stream.type}, {context.name}" if context is not None else stream.type
