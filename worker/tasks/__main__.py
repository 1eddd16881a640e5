"""`python -m worker.tasks PARENT SLOTS`: see worker.tasks.direct."""

import sys

from worker.tasks.direct import main

main(int(sys.argv[1]), int(sys.argv[2]))
