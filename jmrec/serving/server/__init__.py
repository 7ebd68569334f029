"""A small HTTP server for a serving artefact, on Starlette and uvicorn; the extra ``serve``.

========== ====================================================================================
requests   what may be asked, as JSON schemas, and how a body becomes an answer
holder     the artefact that answers, and the one that takes its place when it is renewed
app        the paths, limits on size and time, the log
run        the process: sockets, signals, headers that never end
========== ====================================================================================
"""
