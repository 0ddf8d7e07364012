"""The status page's files."""
