"""Keep a film's times rising if its time stamps start again, are equal or are missing."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

JITTER = Fraction(1, 10)  # seconds; a stamp that goes back by less starts no part
CUT = Fraction(1)  # seconds; a decoding time that goes back by more starts a part, even without a key frame
STEP = Fraction(1, 1000)  # seconds from a time to a mended time behind it; Matroska can't store less
AHEAD = 64  # packets, about one second of a film; all streams of a part begin within them
TIMED = ("video", "audio")  # a subtitle that goes back starts no part
MOST_TIMES = 5  # the most times that a note lists


@dataclass
class _Stream:
    """The state of a stream. Times are the file's, in seconds."""

    offset: Fraction = Fraction(0)  # seconds that are added in the stream's part
    latest: Fraction | None = None  # the greatest time of the part so far
    decoding: Fraction | None = None  # the last decoding time
    written: int | None = None  # the last decoding time that was written, in ticks, with the offset

    def starts_again(self, packet: "av.Packet", time: Fraction) -> bool:
        """Tell whether a packet is the first of another part.

        Video frames are stored in decoding order, so their times go back within a part too. But a key frame is later
        than all frames before it in its part.
        """
        is_back = self.latest is not None and time < self.latest - JITTER
        if packet.stream.type != "video" or (is_back and packet.is_keyframe):
            return is_back
        if self.decoding is None or packet.dts is None:
            return False
        return packet.dts * packet.time_base < self.decoding - CUT

    def follow(self, packet: "av.Packet", time: Fraction) -> None:
        """Note the times of a packet of the stream's part."""
        self.latest = time if self.latest is None else max(self.latest, time)
        if packet.dts is not None:
            self.decoding = packet.dts * packet.time_base

    def enter(self, offset: Fraction) -> None:
        """Begin another part."""
        self.offset, self.latest, self.decoding = offset, None, None


class Times:
    """Mends the times of a film's packets and frames.

    A file that was joined from parts (``cat a.ts b.ts``) starts its time stamps again with each part. Here each part
    follows the end of the part before. The same offset is added in all streams, so picture and sound stay in step.
    """

    def __init__(self, film: "av.VideoStream") -> None:
        self.film = film
        self.joins: list[Fraction] = []  # where parts begin, in seconds from the film's start
        self.mended = 0  # number of frames with another time
        self._streams: dict[int, _Stream] = {}
        self._offset = Fraction(0)  # of the newest part
        self._start: Fraction | None = None
        self._end = Fraction(0)  # the latest end of all packets so far, with offsets
        self._last: int | None = None  # time of the last frame
        self._faults = {"pts": 0, "dts": 0}  # how often each kind of stamp did not rise
        self._seen: dict[str, int] = {}  # the last stamp of each kind

    def in_order(self, packets: Iterable["av.Packet"]) -> Iterator["av.Packet"]:
        """Yield the packets, in the same order, with times that go on from part to part.

        Packets of the film itself can still have equal times. :meth:`mend` mends the film's frames.
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
        """Give a decoded frame a time above the time of the frame before.

        A frame has two stamps, ``pts`` and ``dts``. The stamp that went back less often so far is used, as in FFmpeg.
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
        """Return a note if there are several parts, and a note if frames were mended."""
        notes = []
        if self.joins:
            times = [f"{int(time) // 60}:{int(time) % 60:02}" for time in self.joins]
            more = [f"{len(times) - MOST_TIMES} more times"] if len(times) > MOST_TIMES else []
            notes.append(f"its time stamps go back at {_listed(times[:MOST_TIMES] + more)}; the parts are joined")
        if self.mended:
            notes.append(f"frames that got a new time stamp, later than the frame before: {self.mended}")
        return notes

    def _of(self, packet: "av.Packet") -> _Stream:
        return self._streams.setdefault(packet.stream.index, _Stream(self._offset))

    def _starts_part(self, packet: "av.Packet", time: Fraction) -> bool:
        """Tell whether a packet is the first one of a part that no stream has entered."""
        stream = self._of(packet)
        if packet.stream.type not in TIMED or stream.latest is None or not stream.starts_again(packet, time):
            return False
        if stream.offset == self._offset:
            return True
        # another stream has entered a part; the packet is of that part unless it would still go back there
        return time + self._offset < stream.latest + stream.offset - JITTER

    def _start_part(self, packets: Sequence["av.Packet"]) -> None:
        """Set the offset of a new part, so that its earliest packet follows the end of the part before.

        The first of ``packets`` starts the part. Packets of the part before can still be among the others.
        """
        streams = {index: replace(stream) for index, stream in self._streams.items()}
        begun: set[int] = set()
        starts, end = [], self._end
        for packet in packets:
            time, index = _time(packet), packet.stream.index
            if time is None or packet.stream.type not in TIMED:
                continue
            stream = streams.setdefault(index, _Stream(self._offset))
            if stream.starts_again(packet, time):
                if index in begun:  # a third part starts here
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
        else:  # only this stream goes back, so only its offset changes
            stream = self._of(packets[0])
            end = (stream.latest or 0) + stream.offset + _duration(packets[0])
            stream.enter(end - starts[0])
        self.joins.append(end - (self._start or 0))

    def _move(self, packet: "av.Packet", time: Fraction) -> None:
        """Add the offset of a packet's part to the packet's times."""
        stream = self._of(packet)
        if stream.offset != self._offset and (stream.starts_again(packet, time) or self._is_late(time, stream.offset)):
            stream.enter(self._offset)
        stream.follow(packet, time)
        offset = round(stream.offset / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + offset
        packet.dts = None if packet.dts is None else packet.dts + offset
        if packet.stream.index != self.film.index:
            _keep_rising(packet, stream)
        self._start = time if self._start is None else self._start
        self._end = max(self._end, time + stream.offset + _duration(packet))

    def _is_late(self, time: Fraction, offset: Fraction) -> bool:
        """Tell whether a time fits the newest part better than the part with ``offset``, as after a gap in a stream."""
        return abs(time + self._offset - self._end) < abs(time + offset - self._end)


def _keep_rising(packet: "av.Packet", stream: _Stream) -> None:
    """Give a copied packet a decoding time above the time of the packet before. Most files need rising times."""
    if packet.dts is None:
        return
    # Matroska allows equal times, and needs them for packets shorter than its unit, a millisecond
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
    return ceil(seconds / time_base)


def _listed(words: list[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
