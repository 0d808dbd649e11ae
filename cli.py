"""Files that are never half-written, and the one kind of error that users see."""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(Exception):
    """Something the user can mend: one line naming the file, what is wrong and what to do."""


@contextmanager
def atomic(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` only if the block succeeds.

    durable: wait until the file is on the disk; not worth it for one of thousands of maps.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: dict) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


NEXT_STEP = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.ENOENT: "no such file or folder; check the path",
    errno.EISDIR: "this is a folder where a file is needed; check the path",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another path",
    errno.EEXIST: "a file stands where a folder is needed; choose another path",
}


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main: errors the user can mend become one line and exit code 2."""
    try:
        main()
    except InputError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in NEXT_STEP:
            raise
        message = f"{error.filename or 'output'}: {NEXT_STEP[error.errno]}"
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished before is kept", file=sys.stderr)
        sys.exit(130)
    else:
        return
    print(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
