"""Print what playback rights cost for a request."""

import logging
import sys

import structlog

from tests.bench.rights.bench import run

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
for name, us in run().items():
    sys.stdout.write(f"{name:22} {us:6.2f} us\n")
