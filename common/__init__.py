"""Shared by all packages and scripts: errors, options, files, processes, records."""
