"""A catalogue folder prepared by an Apache Beam pipeline; only `jmrec.data.beam.jobs` imports Beam.

What a row and a column mean is decided by the functions that one machine uses. A pipeline calls
them with a stretch of a file at a time, and a `jmrec.data.beam.recorder.Recorder` answers what only
the whole column tells.
"""
