"""What every room and script shares: errors, options, files, processes."""

VERSION = "0.1.0"
