"""The command line, a file per group of commands."""

EXIT_FAILED = 1
EXIT_CONFIG = 2
