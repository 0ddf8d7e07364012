"""The latency bench: glass to glass, from the capture of a frame to its presentation in Chromium.

    python -m tests.bench.latency [--runs 5] [--seconds 30] [--row NAME] [--json]

    720p30 ==RTMP==> PoP west ==backbone==> origin ==parts==> PoP east ==LL-HLS==> Chromium

The network is `edged demo`, as users start it; the stream was encoded beforehand. Each frame
carries its number as a strip of black and white cells; the publisher notes when it started, so
frame n was captured at start + n / fps, and the browser, on the same clock, reads the strip of
every frame it presents. The viewer is a bare page of another origin with hls.js as it comes (`new
Hls()`: no setting changed, no seek of ours) and, in a further row, our watch page; in another the
stream has B-frames, as OBS makes it.

Each run is a new publication, a new browser profile and a new page, opened in another phase of the
stream's segments. Rounds are interleaved, and medians over the runs are told.
"""
