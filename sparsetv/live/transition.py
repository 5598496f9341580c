"""From one set of tasks in force to another, in one room: whole or not at all.

Everything that can fail is computed before the first bit is written, or is undone.
"""

from collections.abc import Sequence

from sparsetv.live.room import Blend, Room


def transit(room: Room, old: Blend, new: Blend) -> None:
    """Bring a room's tensors from the stitch of `old` to that of `new`.

    Raises:
        NonFiniteError: A merged entry would overflow; the room is as it was.

    Cost:
        The entries of tasks that come, go or change their coefficient, and what these meet.
    """
    before = [key for key in old.coefficients if key in room]
    after = [key for key in new.coefficients if key in room]
    if set(before) & set(after):
        _join(room, old, new, before, after)
    else:
        _swap(room, old, new, before, after)


def _swap(room: Room, old: Blend, new: Blend, before: Sequence[str], after: Sequence[str]) -> None:
    """No task stays: through the base, where the new tasks' base values are read from memory."""
    for key in before:
        room.restore(key)
    try:
        _apply(room, new, after)
    except Exception:
        _apply(room, old, before)
        raise


def _apply(room: Room, blend: Blend, keys: Sequence[str]) -> None:
    """Put tasks onto the base."""
    room.index(keys)
    patches = []
    for key in keys:
        met = room.meetings(key)
        room.save_base(key, met, touching=())
        patches.append((key, room.patch(key, met, blend)))
    for key, bits in patches:
        room.write(key, bits)


def _join(room: Room, old: Blend, new: Blend, before: Sequence[str], after: Sequence[str]) -> None:
    """Some task stays: only entries of tasks that come, go or change are computed anew."""
    entering = [key for key in after if key not in before]
    leaving = [key for key in before if key not in after]
    staying = [key for key in before if key in after]
    changed = [k for k in staying if old.rule != new.rule or old.coefficients[k] != new.coefficients[k]]
    patches = []
    try:
        for key in (*before, *entering) if entering else ():
            room.link(key)
        for key in (*leaving, *entering, *changed):
            met = room.meetings(key)
            if key in entering:
                room.save_base(key, met, touching=before)
            patches.append((key, room.patch(key, met, new)))
    except Exception:
        for key in entering:
            room.unlink(key)
        raise
    for key, bits in patches:
        room.write(key, bits)
    for key in leaving:
        room.unlink(key)
    if len(after) < 2:
        room.index(after)
