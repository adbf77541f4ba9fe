"""What any part of the package may need and nothing else of it is needed for: files, names, processes."""
