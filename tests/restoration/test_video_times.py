"""Times of films whose time stamps start again, are equal or are missing."""

import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from restoration.test_video import NOBODY

from dfpg_plugin.media.video_times import Times
from dfpg_plugin.restoration.restorer import DFPGRestorer
from dfpg_plugin.restoration.video import restore_video

TICK, RATE = Fraction(1, 25), 48_000
COUNT, STEP = 20, 10  # frames of a part; difference of grey between two of them
MS = Fraction(1, 1000)
MENDED = "frames that got a new time stamp, later than the frame before: "


@pytest.fixture
def nobody(weights: str) -> DFPGRestorer:
    """A restorer that finds no face."""
    return DFPGRestorer(weights, settings=NOBODY)


def grey(number: int, pts: int, time_base: Fraction, width: int = 64) -> av.VideoFrame:
    """Return a frame that tells its number by its brightness."""
    frame = av.VideoFrame.from_ndarray(np.full((48, width, 3), 20 + STEP * number, np.uint8), format="rgb24")
    frame.pts, frame.time_base = pts, time_base
    return frame


def write_part(path: Path, encoder: str = "libx264", sound: str = "mp2", width: int = 64, subtitle: int = 0) -> None:
    """Write a film with sound whose frames become brighter one by one; and a subtitle at so many milliseconds."""
    with av.open(str(path), "w") as target:
        video = target.add_stream(encoder, rate=25)
        video.width, video.height, video.pix_fmt, video.codec_context.time_base = width, 48, "yuv420p", TICK
        audio = target.add_stream(sound, rate=RATE)
        text = b"1\n00:00:00,%03d --> 00:00:00,%03d\nHello\n\n" % (subtitle, subtitle + 10)
        words = av.open(io.BytesIO(text), format="srt") if subtitle else None
        subtitles = target.add_stream_from_template(words.streams.subtitles[0]) if words else None
        for i in range(COUNT):
            target.mux(video.encode(grey(i, i, TICK, width)))
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1920), np.int16), format="s16", layout="stereo")
            heard.sample_rate, heard.pts, heard.time_base = RATE, 1920 * i, Fraction(1, RATE)
            target.mux(audio.encode(heard))
        target.mux([*video.encode(None), *audio.encode(None)])
        for packet in words.demux() if words else ():
            if packet.size:
                packet.stream = subtitles
                target.mux(packet)


def frames_of(path: Path) -> tuple[list[Fraction], list[int]]:
    """Return the times of a film's frames, in seconds, and which of its part each is, by its brightness."""
    with av.open(str(path)) as source:
        frames = list(source.decode(video=0))
    brightness = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    return [frame.pts * frame.time_base for frame in frames], [round((value - 20) / STEP) for value in brightness]


def times_of(path: Path, kind: str) -> list[Fraction]:
    """Return the times of a stream's packets in seconds."""
    with av.open(str(path)) as source:
        return [p.pts * p.time_base for p in source.demux(getattr(source.streams, kind)) if p.size]


@pytest.mark.parametrize(
    ("suffix", "encoder", "sound", "second"),
    [
        (".ts", "libx264", "mp2", 64), (".ts", "libx264", "aac", 32), (".mpg", "mpeg2video", "mp2", 64),
        (".mkv", "libx264", "aac", 64), (".webm", "libvpx-vp9", "libopus", 64),
    ],
)  # fmt: skip
def test_parts_whose_time_stamps_start_again_are_joined_and_stay_in_step(
    tmp_path: Path, nobody: DFPGRestorer, suffix: str, encoder: str, sound: str, second: int
) -> None:
    parts = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for part, width in zip(parts, (64, second), strict=True):
        write_part(part, encoder, sound, width)
    joined, output = tmp_path / f"joined{suffix}", tmp_path / f"out{suffix if suffix == '.webm' else '.mkv'}"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    film = restore_video(nobody, joined, output)
    assert "its time stamps go back at 0:00; the parts are joined" in film.notes
    assert sum("frames" in note for note in film.notes) == (second != 64)
    times, which = frames_of(output)
    assert which == [*range(COUNT), *range(COUNT)]
    starts, _ = frames_of(joined)
    steps, given = (np.diff(np.array(moments, float)) for moments in (times, starts))
    assert given[COUNT - 1] < 0
    assert np.abs(np.delete(steps - given, COUNT - 1)).max() < 0.0025
    assert 0.039 < steps[COUNT - 1] < 0.15  # sound may last longer than film

    before, after = times_of(joined, "audio"), times_of(output, "audio")
    assert len(after) == len(before)
    assert min(np.diff(np.array(after, float))) > 0
    (again,) = np.flatnonzero(np.diff(np.array(before, float)) < 0) + 1
    for sound_at, film_at in ((0, 0), (again - 1, 0), (again, COUNT), (-1, COUNT)):
        distance = before[sound_at] - starts[film_at]
        assert abs(after[sound_at] - times[film_at] - distance) < 0.0025


@pytest.mark.parametrize("moments", [(100, 300), (300, 100)])
def test_subtitles_go_along_with_their_part(tmp_path: Path, nobody: DFPGRestorer, moments: tuple[int, int]) -> None:
    parts = [tmp_path / f"{moment}.mkv" for moment in moments]
    for part, moment in zip(parts, moments, strict=True):
        write_part(part, subtitle=moment)
    joined, output = tmp_path / "joined.mkv", tmp_path / "out.mkv"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    restore_video(nobody, joined, output)
    times, _ = frames_of(output)
    shown = [float(moment) for moment in times_of(output, "subtitles")]
    wanted = [float(times[i * COUNT]) + moment / 1000 for i, moment in enumerate(moments)]
    assert shown == pytest.approx(wanted, abs=0.002)


@pytest.mark.parametrize(
    ("given", "written", "num_mended"),
    [
        ([0, 40, 40, 80, 120, 120, 120, 160], [0, 40, 41, 80, 120, 121, 122, 160], 3),
        ([0, 40, 80, 60, 120], [0, 40, 80, 81, 120], 1),
        ([80, 120, 160], [80, 120, 160], 0),
        ([None, None, None], [0, 40, 80], 3),
    ],
)
def test_frames_with_equal_or_missing_time_stamps_are_all_there_in_order(
    tmp_path: Path, nobody: DFPGRestorer, given: Sequence[int | None], written: list[int], num_mended: int
) -> None:
    path, output = tmp_path / "a.mkv", tmp_path / "out.mkv"
    kind = ("matroska", "mjpeg", "yuvj420p") if None not in given else ("h264", "libx264", "yuv420p")
    with av.open(str(path), "w", format=kind[0]) as target:
        video = target.add_stream(kind[1], rate=25)
        video.width, video.height, video.pix_fmt, video.codec_context.time_base = 64, 48, kind[2], MS
        for i, stamp in enumerate(given):
            for packet in video.encode(grey(i, 40 * i, MS)):
                if stamp is not None:
                    packet.pts, packet.dts = stamp, i - 100
                target.mux(packet)
        target.mux(video.encode(None))
    notes = restore_video(nobody, path, output).notes
    assert [note for note in notes if "frames" in note] == ([f"{MENDED}{num_mended}"] if num_mended else [])
    times, which = frames_of(output)
    assert which == [*range(len(given))]
    assert [round(1000 * time) for time in times] == written


def test_a_film_with_b_frames_in_avi_is_restored_in_even_steps(tmp_path: Path, nobody: DFPGRestorer) -> None:
    """AVI stores no times of display; those that FFmpeg guesses for H.264 go back."""
    write_part(tmp_path / "a.avi", sound="mp3")
    film = restore_video(nobody, tmp_path / "a.avi", tmp_path / "out.mkv")
    assert film.notes[0].startswith(MENDED)
    times, which = frames_of(tmp_path / "out.mkv")
    assert which == [*range(COUNT)]
    assert np.abs(np.diff(np.array(times[1:], float)) - 0.04).max() < 0.0015


@pytest.fixture
def packet() -> Iterator[Callable[..., av.Packet]]:
    """Make a packet of a film, its sound or its subtitles: v, a or s; its stamps are milliseconds."""
    with av.open(io.BytesIO(), "w", format="matroska") as target:
        text = av.open(io.BytesIO(b"1\n00:00:00,010 --> 00:00:00,020\nHello\n\n"), format="srt")
        streams = {
            "v": target.add_stream("libx264", rate=25),
            "a": target.add_stream("aac", rate=RATE),
            "s": target.add_stream_from_template(text.streams.subtitles[0]),
        }

        def make(kind: str, pts: int | None, dts: int | None = None, key: bool = True) -> av.Packet:
            made = av.Packet(b"content")
            made.stream, made.time_base, made.duration, made.is_keyframe = streams[kind], MS, 40, key
            made.pts, made.dts = pts, pts if dts is None else dts
            return made

        make.film = streams["v"]
        yield make


@pytest.mark.parametrize(
    ("given", "written", "joins"),
    [
        pytest.param(  # the sound of the second part comes before the last frame of the first
            [("v", 0), ("a", 0), ("a", 400), ("a", 0), ("v", 440), ("v", 0), ("a", 40), ("v", 40)],
            [0, 0, 400, 480, 440, 480, 520, 520], [480], id="mixed",
        ),
        pytest.param(  # the sound of the second part begins before its film
            [("v", 200), ("a", 200), ("v", 600), ("a", 600), ("v", 300), ("a", 200), ("v", 340)],
            [200, 200, 600, 600, 740, 640, 780], [440], id="sound first",
        ),
        pytest.param(
            [("v", 0), ("v", 200), ("v", 0), ("v", 200), ("v", 0), ("v", 200)],
            [0, 200, 240, 440, 480, 680], [240, 480], id="three short parts",
        ),
        pytest.param(
            [("v", 400), ("v", 600), ("v", 200), ("v", 400), ("v", 0), ("v", 200)],
            [400, 600, 640, 840, 880, 1080], [240, 480], id="three parts, each earlier",
        ),
        pytest.param(
            [("v", 0), ("v", 320, 40, False), ("v", 80, 80, False), ("v", 160, 160)],
            [0, 320, 80, 360], [360], id="a key frame before a B-frame's reference",
        ),
        pytest.param(  # as B-frames are stored: only a key frame is later than all before it
            [("v", 0), ("v", 320, 40, False), ("v", 160, 80, False), ("v", 80, 120, False)],
            [0, 320, 160, 80], [], id="B-frames",
        ),
        pytest.param(
            [("v", 0), ("v", 1960, 1960, False), ("v", 600, 600, False), ("v", 640, 640, False)],
            [0, 1960, 2000, 2040], [2000], id="a part that begins without a key frame",
        ),
        pytest.param(  # by less than JITTER, and as subtitles may
            [("v", 0), ("a", 0), ("a", 300), ("a", 210), ("a", 340), ("s", 900), ("s", 300), ("v", 40)],
            [0, 0, 300, 300, 340, 900, 900, 40], [], id="small steps",
        ),
        pytest.param(
            [("v", 0), ("v", 400), ("v", None, None), ("v", 0), ("v", 40)],
            [0, 400, None, 440, 480], [440], id="without stamps",
        ),
        pytest.param(  # the film keeps its times, and the next part starts behind both
            [("v", 0), ("a", 0), ("v", 400), ("a", 400), ("a", 100), *[("v", t) for t in range(440, 3640, 40)],
             ("a", 3600), ("v", 0), ("a", 0)],
            [0, 0, 400, 400, 440, *range(440, 3640, 40), 3600, 3640, 3640], [440, 3640], id="sound alone",
        ),
    ],
)  # fmt: skip
def test_times_of_packets_go_on_from_part_to_part(
    packet: Callable[..., av.Packet], given: list[tuple], written: list[int | None], joins: list[int]
) -> None:
    times = Times(packet.film)
    packets = list(times.in_order([packet(*arguments) for arguments in given]))
    assert [made.pts for made in packets] == written
    sounds = [made for made in packets if made.stream.type == "audio"]
    assert [made.dts for made in sounds] == [made.pts for made in sounds]
    assert [1000 * time for time in times.joins] == joins


@pytest.mark.parametrize(("time_base", "written"), [(MS, [7, 7, 8]), (Fraction(1, 90_000), [7, 8, 9])])
def test_equal_times_of_sound_stay_only_where_a_tick_is_a_millisecond(
    packet: Callable[..., av.Packet], time_base: Fraction, written: list[int]
) -> None:
    sounds = [packet("a", pts) for pts in (7, 7, 8)]
    for sound in sounds:
        sound.time_base = time_base
    assert [made.dts for made in Times(packet.film).in_order(sounds)] == written


def test_packets_without_a_duration_last_as_long_as_a_frame(packet: Callable[..., av.Packet]) -> None:
    films = [packet("v", pts) for pts in (0, 200, 0)]
    for film in films:
        film.duration = 0
    assert [made.pts for made in Times(packet.film).in_order(films)] == [0, 200, 240]


def test_a_note_lists_the_first_times(packet: Callable[..., av.Packet]) -> None:
    times = Times(packet.film)
    list(times.in_order([packet("v", pts) for _ in range(8) for pts in (0, 59_960)]))
    assert times.notes() == [
        "its time stamps go back at 1:00, 2:00, 3:00, 4:00, 5:00 and 2 more times; the parts are joined"
    ]


def test_a_frame_whose_time_is_mended_is_a_millisecond_later(tmp_path: Path) -> None:
    write_part(tmp_path / "a.ts")
    with av.open(str(tmp_path / "a.ts")) as source:
        times, frame = Times(source.streams.video[0]), av.VideoFrame(64, 48, "yuv420p")
        for frame.pts in (7200, 7200):  # 1/90000 s
            times.mend(frame)
    assert frame.pts == 7290


def test_of_two_stamps_of_a_frame_the_one_that_rises_is_taken(tmp_path: Path) -> None:
    write_part(tmp_path / "a.avi", "mpeg4", "mp3")
    with av.open(str(tmp_path / "a.avi")) as source:
        times, frame, written = Times(source.streams.video[0]), av.VideoFrame(64, 48, "yuv420p"), []
        for frame.pts, frame.dts in ((10, 20), (5, 30), (50, 40), (45, 50)):
            times.mend(frame)
            written.append(frame.pts)
    assert written == [10, 30, 40, 50]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_last_picture_is_shown_as_long_as_it_was(nobody: DFPGRestorer, tmp_path: Path, suffix: str) -> None:
    source, result = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    with av.open(str(source), "w") as target:
        video = target.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width, video.height, video.pix_fmt, video.codec_context.time_base = 64, 48, "yuv420p", TICK
        packets = [packet for i in range(5) for packet in video.encode(grey(i, i, TICK))]
        packets += video.encode(None)
        packets[-1].duration = round(2 / packets[-1].time_base)
        target.mux(packets)
    restore_video(nobody, source, result)
    lengths = []
    for path in (source, result):
        with av.open(str(path)) as film:
            lengths.append(film.duration / av.time_base)
    assert lengths[0] == pytest.approx(2.16, abs=0.05)
    assert lengths[1] == pytest.approx(lengths[0], abs=0.05)
