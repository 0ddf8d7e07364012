"""A disk for tests, which works when it is told to."""

from collections.abc import Callable, Sequence

READS_MAX = 100


class FakeStore:
    """A `Store`; writes and deletions are done at once, or as reads are: with `go`."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.usable = True
        self.good = True
        self.files: dict[str, bytes] = {}
        self.reads = 0
        self.at_once = at_once
        self.jobs: list[Callable[[], None]] = []

    def write(self, name: str, body: Sequence[bytes], done: Callable[[bool], None]) -> None:
        def work() -> None:
            if self.good:
                self.files[name] = b"".join(body)
            done(self.good)

        self._do(work)

    def read(self, name: str, size: int, done: Callable[[bytes | None], None]) -> bool:
        self.reads += 1

        def work() -> None:
            data = self.files.get(name)
            is_whole = self.good and data is not None and len(data) == size
            done(data if is_whole else None)

        self.jobs.append(work)
        return len(self.jobs) <= READS_MAX

    def delete(self, names: Sequence[str]) -> None:
        def work() -> None:
            for name in names:
                for file in [f for f in self.files if f == name or f.startswith(f"{name}/")]:
                    del self.files[file]

        self._do(work)

    def go(self, count: int | None = None) -> None:
        """Do what has been asked for so far, or the first of it."""
        for _ in range(len(self.jobs) if count is None else min(count, len(self.jobs))):
            self.jobs.pop(0)()

    def _do(self, work: Callable[[], None]) -> None:
        if self.at_once:
            work()
        else:
            self.jobs.append(work)
