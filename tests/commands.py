"""Commands of prepare/ and recipes/ in this process, which has imported torch already."""

import sys
from unittest import mock


def run(main, *words) -> None:
    """Call a command's main with these words as its command line."""
    with mock.patch.object(sys, "argv", ["command", *map(str, words)]):
        main()
