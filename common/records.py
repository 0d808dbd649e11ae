"""Records of what files were made from: a run that is started again goes on, or is refused."""

from collections.abc import Collection
from pathlib import Path

from common.files import read_json, write_json


class Record:
    """The facts that determine files, compared with those of the files that are there.

    path: a JSON file that holds it. facts: all that determines the files, plain as in JSON.
    may_differ: names of facts that may change between a run and its continuation. stored: the
    facts of the files that are there, if `path` is not where they are.
    """

    def __init__(
        self, path: Path, facts: dict, may_differ: Collection[str] = (), stored: dict | None = None
    ):
        if stored is None:
            stored = read_json(path) if path.exists() else {}
        self.path, self.facts, self.may_differ, self.stored = path, facts, may_differ, stored

    def changes(self) -> dict[str, str]:
        """Return the facts that differ from those of the files that are there, in words."""
        return {
            name: f"{name} {self.stored.get(name)} instead of {fact}"
            for name, fact in self.facts.items()
            if self.stored.get(name) != fact
        }

    def differences(self) -> dict[str, str]:
        """Return the changes that make this another run."""
        return {name: t for name, t in self.changes().items() if name not in self.may_differ}

    @property
    def done(self) -> bool:
        """Whether all files of the same run are there."""
        return self.stored.get("complete") is True and not self.differences()

    def begin(self, **more) -> None:
        """Write the facts, and more, of files that are not complete."""
        write_json(self.path, {**self.facts, **more, "complete": False})

    def finish(self, **more) -> dict:
        """Write and return the facts, and more, of complete files."""
        self.stored = {**self.facts, **more, "complete": True}
        write_json(self.path, self.stored)
        return self.stored
