"""The origin's services: admission, packaging."""
