"""Which infrared frame goes with which visible one, when both cameras run at their own pace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fusionblocks.video.frames import Frame

APART = 1.5
"""Gaps between infrared frames beyond which a visible frame has no partner at the beginning and at the end."""


class Pairing:
    """Pairs of the frames of two cameras: each visible frame with the infrared one that is nearest in time.

    An infrared frame may serve several visible ones, or none. Visible frames from before the first infrared one, and
    from after the last, have no partner and are left out.

    Args:
        infrared: The infrared frames.
        visible: The visible frames.
        offset: Seconds by which the infrared camera's clock is behind: added to its times.
        absolute: Compare the times as they are; otherwise each source begins at 0.

    Attributes:
        repeated: How many visible frames had the same infrared frame as the one before.
        unused: Infrared frames that went with none.
        without: Visible frames without a partner.

    Example:
        >>> from fusionblocks.video import Frame, Pairing
        >>> infrared = [Frame(i / 10, i, "") for i in range(3)]
        >>> visible = [Frame(i / 20, i, "") for i in range(5)]
        >>> [(a.picture, b.picture) for a, b in Pairing(infrared, visible)]
        [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4)]
    """

    def __init__(
        self, infrared: Iterable[Frame], visible: Iterable[Frame], *, offset: float = 0.0, absolute: bool = False
    ) -> None:
        self._sources = infrared, visible
        self.offset = float(offset)
        self.absolute = absolute
        self.repeated = self.unused = self.without = 0

    def __iter__(self) -> Iterator[tuple[Frame, Frame]]:
        infrared, visible = iter(self._sources[0]), iter(self._sources[1])
        now = next(infrared, None)
        if now is None:
            return
        begin = 0.0 if self.absolute else now.time
        following = next(infrared, None)
        # a lone frame has no gap: it goes with every visible one
        gap = following.time - now.time if following else float("inf")
        used: Frame | None = None
        first_visible: float | None = None
        for frame in visible:
            if first_visible is None:
                first_visible = 0.0 if self.absolute else frame.time
            time = frame.time - first_visible + begin - self.offset
            while following is not None and abs(following.time - time) < abs(now.time - time):
                if now is not used:
                    self.unused += 1
                gap = following.time - now.time
                now, following = following, next(infrared, None)
            outside = time < now.time or following is None
            if outside and abs(time - now.time) > APART * max(gap, 1e-9):
                self.without += 1
                if following is None and time > now.time and used is not None:
                    break
                continue
            if now is used:
                self.repeated += 1
            used = now
            yield now, frame
