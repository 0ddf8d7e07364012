"""The doors for people and programs beside the media: the admin socket."""
