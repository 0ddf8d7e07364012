"""The transcoder bench: CPU of a whole ladder beside one `ffmpeg` that makes the same.

    python -m tests.bench.transcode [--runs 5] [--seconds 10] [--row NAME] [--preset veryfast]

    clip ==units==> ladder child ==rungs==> counted        CPU of the child and of who feeds it
    clip ==file===> ffmpeg, same x264 settings ==> null    CPU of ffmpeg

Both run with one thread for each decoder, scaler and encoder, as fast as they can, in turns. What
the child takes to start (Python, once per stream) is told apart: a broadcast lasts for hours. The
two link libx264 of different builds, and FFmpeg of different versions; which, is printed.
"""
