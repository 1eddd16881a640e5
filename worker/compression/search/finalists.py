"""Which of the candidates inside the bound are proposed, in which order."""

import math
from collections.abc import Sequence

from worker.compression.search.bench import by_bytes, ranked
from worker.compression.search.trial import Trial
from worker.compression.subject import Subject

FINALISTS = 4
"""Most candidates that are timed or judged to the end."""
# Share of the best gain that counts as the same: less is within what timing and packing vary.
_SAME = 0.97


def finalists(subject: Subject, trials: Sequence[Trial]) -> list[Trial]:
    """Best first; of those as good as the best, the one that loses least."""
    good = ranked(subject, trials)[:FINALISTS]
    bytes_decide, goal = by_bytes(subject), subject.recipe.goal

    def gain(one: Trial) -> float:
        return 1 / (one.bytes or math.inf) if bytes_decide else one.speedup

    most = max((gain(one) for one in good), default=0.0)
    return sorted(
        good,
        key=lambda one: (
            (0, not one.portable, one.bound_used(goal))
            if gain(one) >= _SAME * most
            else (1, False, -gain(one))
        ),
    )
