"""The Trio toolkit: pump, hub, listeners, TLS, logs, metrics; no protocol and no policy."""
