"""Shared by all packages and scripts: errors, options, files, processes, records."""

VERSION = "0.1.0"
