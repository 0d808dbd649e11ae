"""What every room and script shares: errors, options, files, processes."""
