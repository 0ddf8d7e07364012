"""Ingest plug-ins: each turns one protocol's publishers into canonical publications."""
