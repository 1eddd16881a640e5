"""How fast somebody may ask: a bucket of tokens each, that fills as time passes."""

import math
import time

from app.errors import Refusal

MAX_BUCKETS = 10_000


class Rate:
    """`amount` requests in `seconds`, for each owner; as many at once. 0 is any number."""

    def __init__(self, amount: int, *, seconds: float) -> None:
        self._amount = amount
        self._per_second = amount / seconds
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, owner_id: str) -> None:
        """Count one request.

        Raises:
            Refusal: too_many_requests, with the seconds to wait.
        """
        if not self._amount:
            return
        now = time.monotonic()
        left, at = self._buckets.get(owner_id, (float(self._amount), now))
        left = min(self._amount, left + (now - at) * self._per_second)
        if left < 1:
            self._buckets[owner_id] = left, now
            raise too_many("requests", seconds=(1 - left) / self._per_second)
        if len(self._buckets) >= MAX_BUCKETS:
            self._buckets.clear()  # forgetting is kinder than growing without end
        self._buckets[owner_id] = left - 1, now


def too_many(what: str, *, seconds: float) -> Refusal:
    return Refusal(
        "too_many_requests",
        f"too many {what}",
        hint="wait as long as Retry-After says, and send fewer at a time",
        headers={"Retry-After": str(max(1, math.ceil(seconds)))},
    )
