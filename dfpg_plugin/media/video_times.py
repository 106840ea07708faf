"""Keep the times of a film rising where its time stamps start again, are equal or are missing."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

JITTER = Fraction(1, 10)  # seconds; a stamp that goes back by less is mended alone
CUT = Fraction(1)  # seconds; a decoding time that goes back by more starts a part, key frame or not
STEP = Fraction(1, 1000)  # seconds between two times of which the second is mended: Matroska stores no less
AHEAD = 64  # packets in which all streams of a part begin: one second of a film
TIMED = ("video", "audio")  # subtitles may go back on their own
MOST_TIMES = 5  # that a note lists


@dataclass
class _Stream:
    """What is known of a stream. Seconds, as the file says them, except ``written``."""

    offset: Fraction = Fraction(0)  # of the part that the stream is in
    latest: Fraction | None = None  # the greatest stamp of that part
    decoding: Fraction | None = None  # the last decoding time
    written: int | None = None  # the last decoding time that was given out, in ticks

    def starts_again(self, packet: "av.Packet", time: Fraction) -> bool:
        """Tell whether a packet is the first of another part. A key frame is later than all packets before it."""
        is_back = self.latest is not None and time < self.latest - JITTER
        if packet.stream.type != "video" or (is_back and packet.is_keyframe):
            return is_back
        if self.decoding is None or packet.dts is None:
            return False
        return packet.dts * packet.time_base < self.decoding - CUT

    def follow(self, packet: "av.Packet", time: Fraction) -> None:
        """Take note of a packet of the part."""
        self.latest = time if self.latest is None else max(self.latest, time)
        if packet.dts is not None:
            self.decoding = packet.dts * packet.time_base

    def enter(self, offset: Fraction) -> None:
        """Go over to another part."""
        self.offset, self.latest, self.decoding = offset, None, None


class Times:
    """The times of a film's packets and frames, mended.

    A file that was put together from parts (``cat a.ts b.ts``) starts its time stamps again with each. Here the times
    of a part go on behind those of the part before: one offset is added for all streams, which so stay in step.
    """

    def __init__(self, film: "av.VideoStream") -> None:
        self.film = film
        self.joins: list[Fraction] = []  # seconds from the film's start
        self.mended = 0  # frames
        self._streams: dict[int, _Stream] = {}
        self._offset = Fraction(0)  # of the newest part
        self._start: Fraction | None = None
        self._end = Fraction(0)  # of all packets so far
        self._last: int | None = None  # time of the last frame
        self._faults = {"pts": 0, "dts": 0}
        self._seen: dict[str, int] = {}

    def in_order(self, packets: Iterable["av.Packet"]) -> Iterator["av.Packet"]:
        """Yield the packets, in their order, with times that go on from part to part.

        Those of the film itself may still be equal: :meth:`mend` looks at its frames.
        """
        source, ahead = iter(packets), deque["av.Packet"]()
        while (packet := ahead.popleft() if ahead else next(source, None)) is not None:
            time = _time(packet)
            if time is not None:
                if self._starts_part(packet, time):
                    ahead.extend(islice(source, AHEAD - len(ahead)))
                    self._start_part([packet, *ahead])
                self._move(packet, time)
            yield packet

    def mend(self, frame: "av.VideoFrame") -> None:
        """Give a decoded frame a time above that of the frame before, if it has none.

        Of its two stamps the one is taken that went back less often so far, which is FFmpeg's rule too.
        """
        stamps = {"pts": frame.pts, "dts": frame.dts}
        for kind, stamp in stamps.items():
            if stamp is not None:
                self._faults[kind] += stamp <= self._seen.get(kind, stamp - 1)
                self._seen[kind] = stamp
        trusted = "pts" if self._faults["pts"] <= self._faults["dts"] else "dts"
        stamp = stamps[trusted] if stamps[trusted] is not None else frame.pts
        if stamp is None:
            stamp = 0 if self._last is None else self._last + round(_frame_time(self.film) / self.film.time_base)
        elif self._last is not None and stamp <= self._last:
            stamp = self._last + _ticks(STEP, self.film.time_base)
        self.mended += stamp != frame.pts
        frame.pts = self._last = stamp

    def notes(self) -> list[str]:
        """Return a note on the parts, if there are several, and one on the frames that were mended, if any."""
        notes = []
        if self.joins:
            times = [f"{int(time) // 60}:{int(time) % 60:02}" for time in self.joins]
            more = [f"{len(times) - MOST_TIMES} more times"] if len(times) > MOST_TIMES else []
            notes.append(f"its time stamps go back at {_listed(times[:MOST_TIMES] + more)}; the parts are joined")
        if self.mended:
            notes.append(f"frames without a later time stamp than the frame before, which are given one: {self.mended}")
        return notes

    def _of(self, packet: "av.Packet") -> _Stream:
        return self._streams.setdefault(packet.stream.index, _Stream(self._offset))

    def _starts_part(self, packet: "av.Packet", time: Fraction) -> bool:
        """Tell whether a packet is the first of a part that no stream has come to."""
        stream = self._of(packet)
        if packet.stream.type not in TIMED or stream.latest is None or not stream.starts_again(packet, time):
            return False
        return stream.offset == self._offset or time + self._offset < stream.latest + stream.offset - JITTER

    def _start_part(self, packets: Sequence["av.Packet"]) -> None:
        """Put the earliest of a part's packets behind all packets of the part before. Both kinds come mixed."""
        streams = {index: replace(stream) for index, stream in self._streams.items()}
        begun: set[int] = set()
        starts, end = [], self._end
        for packet in packets:
            time, index = _time(packet), packet.stream.index
            if time is None or packet.stream.type not in TIMED:
                continue
            stream = streams.setdefault(index, _Stream(self._offset))
            if stream.starts_again(packet, time):
                if index in begun:  # yet another part
                    break
                begun.add(index)
                stream.enter(stream.offset)
            stream.follow(packet, time)
            if index in begun:
                starts.append(time)
            else:
                end = max(end, time + stream.offset + _duration(packet))
        if self.film.index in begun:
            self._offset = end - min(starts)
        else:  # one stream goes back, and the others stay where they are
            stream = self._of(packets[0])
            end = (stream.latest or 0) + stream.offset + _duration(packets[0])
            stream.enter(end - starts[0])
        self.joins.append(end - (self._start or 0))

    def _move(self, packet: "av.Packet", time: Fraction) -> None:
        """Move a packet by the offset of its part."""
        stream = self._of(packet)
        if stream.offset != self._offset and (stream.starts_again(packet, time) or self._is_late(time, stream.offset)):
            stream.enter(self._offset)
        stream.follow(packet, time)
        offset = round(stream.offset / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + offset
        packet.dts = None if packet.dts is None else packet.dts + offset
        if packet.stream.index != self.film.index:
            _raise(packet, stream)
        self._start = time if self._start is None else self._start
        self._end = max(self._end, time + stream.offset + _duration(packet))

    def _is_late(self, time: Fraction, offset: Fraction) -> bool:
        """Tell whether a time, of a stream with gaps, fits the newest part better than the one with this offset."""
        return abs(time + self._offset - self._end) < abs(time + offset - self._end)


def _raise(packet: "av.Packet", stream: _Stream) -> None:
    """Give a packet that is copied a decoding time that is not below the one before; most files take no equal ones."""
    if packet.dts is None:
        return
    # in Matroska equal times are allowed, and right where packets are shorter than its millisecond
    may_be_equal = packet.stream.type == "subtitle" or packet.time_base >= STEP
    least = packet.dts if stream.written is None else stream.written + (not may_be_equal)
    if packet.dts < least:
        packet.dts = least
        packet.pts = least if packet.pts is None else max(packet.pts, least)
    stream.written = packet.dts


def _time(packet: "av.Packet") -> Fraction | None:
    stamp = packet.dts if packet.pts is None else packet.pts
    return None if stamp is None else stamp * packet.time_base


def _duration(packet: "av.Packet") -> Fraction:
    if packet.duration or packet.stream.type != "video":
        return (packet.duration or 0) * packet.time_base
    return _frame_time(packet.stream)


def _frame_time(film: "av.VideoStream") -> Fraction:
    return 1 / (film.average_rate or film.guessed_rate or Fraction(25))


def _ticks(seconds: Fraction, time_base: Fraction) -> int:
    return -int(-seconds // time_base)  # rounded up


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
