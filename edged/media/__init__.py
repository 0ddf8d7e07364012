"""The canonical stream model: what every protocol is turned into, and nothing that does I/O."""
