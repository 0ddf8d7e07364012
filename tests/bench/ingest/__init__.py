"""The ingest bench: what it costs to take a stream in by RTMP and relay it, beside nginx-rtmp.

    python -m tests.bench.ingest [--streams 100] [--seconds 20] [--runs 5] [--tls-backbone] [--json]
    python -m tests.bench.ingest --profile        # where edged's time goes

    native/generator ==RTMP==> nginx-rtmp ==RTMP push==> native/sink
    native/generator ==RTMP==> edged's PoP ==backbone==> native/sink, as the PoP's only origin

The generator sends as a broadcaster's uplink does: 6.25 Mbit/s of H.264 and AAC for each publisher,
in pieces of 1448 bytes evenly spread. Each unit ends with a marker that holds the moment at which
its last piece was written; from it the sink knows each unit's delay, and what is missing. The
server has one core for itself, generator and sink share another; a run in which these two use more
than 90 % of theirs is void. Rounds are interleaved (every row once per round), ratios are taken
within a round, and medians are told. CPU is read from /proc: the server's process and its children.

nginx-rtmp's p99 of some 40 ms is its own: it leaves Nagle's algorithm on where it pushes, and the
last segment of a message waits for the sink's delayed acknowledgement.
"""
