"""Records of the settings and inputs of files, to decide whether a new run continues an old one."""

from collections.abc import Collection
from pathlib import Path

from common.files import read_json, write_json


class Record:
    """The facts that determine files, compared with those of existing files.

    path: JSON file of the record. facts: everything that determines the files, as JSON values.
    may_differ: facts that may change. stored: those of existing files, if not from `path`.
    """

    def __init__(
        self, path: Path, facts: dict, may_differ: Collection[str] = (), stored: dict | None = None
    ):
        if stored is None:
            stored = read_json(path) if path.exists() else {}
        self.path, self.facts, self.may_differ, self.stored = path, facts, may_differ, stored

    def changes(self) -> dict[str, str]:
        """Return descriptions of the facts that differ from those of the existing files."""
        return {
            name: f"{name} {self.stored.get(name)} instead of {fact}"
            for name, fact in self.facts.items()
            if self.stored.get(name) != fact
        }

    def differences(self) -> dict[str, str]:
        """Return the differences that make this a different run."""
        return {name: t for name, t in self.changes().items() if name not in self.may_differ}

    @property
    def done(self) -> bool:
        """Whether the same run has already written all files."""
        return self.stored.get("complete") is True and not self.differences()

    def begin(self, **more) -> None:
        """Write the facts, and more entries, for incomplete files."""
        write_json(self.path, {**self.facts, **more, "complete": False})

    def finish(self, **more) -> dict:
        """Write and return the facts, and more entries, for complete files."""
        self.stored = {**self.facts, **more, "complete": True}
        write_json(self.path, self.stored)
        return self.stored
