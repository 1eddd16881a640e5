"""Other quantizers on the same models and samples, raced in one process beside our result.

    python -m benchmarks.peers --corpus DIR --recipes FILE [--work DIR] [--only-make]

Each peer works in an environment of its own, made from its requirements file here. What it
makes is kept in the work folder with what it said, so that the race alone needs a quiet
machine; bad rows (crashed, does not load, accuracy lost) stay in the table. Networks with
random weights have no task: there the bound is the SQNR of the outputs on samples that nobody
calibrated with.
"""
