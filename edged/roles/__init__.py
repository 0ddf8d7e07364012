"""The roles of a process: each builds its services and runs them in one nursery."""
