"""How often a person's estimate is published."""

from __future__ import annotations


class Pace:
    """Lets through at most ``rate`` triggers a second per person; discards the others, never delays one.

    A due time that moves on a grid keeps the mean rate when triggers jitter; a tenth of a period is forgiven.
    """

    def __init__(self, rate: float) -> None:
        self._period_ns = round(1e9 / rate)
        self._due_ns: dict[int | None, int] = {}

    def admit(self, person: int | None, now_ns: int) -> bool:
        due = self._due_ns.get(person)
        if due is not None and now_ns < due - self._period_ns // 10:
            return False
        if due is None:
            # Of whom nothing was due for so long it makes no difference, and over the hours many come and go.
            self._due_ns = {
                each: due_ns for each, due_ns in self._due_ns.items() if now_ns <= due_ns + self._period_ns
            }
        late = due is None or now_ns > due + self._period_ns
        self._due_ns[person] = (now_ns if late or due is None else due) + self._period_ns
        return True

    def forget(self, person: int | None) -> None:
        self._due_ns.pop(person, None)
