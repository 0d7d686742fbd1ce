"""How long a test waits for what must come to pass before it takes it for what never will.

No test asserts on how long something takes (benchmarks measure that): this only keeps one that
waits in vain from waiting for ever, so it is far above what a busy machine needs.
"""

PATIENCE_S = 60.0
