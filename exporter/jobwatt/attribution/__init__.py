"""The arithmetic of attribution: pure functions of counters, times and weights.

Nothing here reads a file or a clock; it imports the model and the units only (a test holds it to
that), so that the same numbers in give the same numbers out.
"""
