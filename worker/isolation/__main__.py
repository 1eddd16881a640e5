"""`python -m worker.isolation`: one line per layer, and whether the attacks were blocked."""

import sys

from worker.isolation.selftest import self_test

result = self_test()
sys.stdout.write("\n".join(result.lines()) + "\n")
sys.exit(1 if result.open() or not result.probes else 0)
