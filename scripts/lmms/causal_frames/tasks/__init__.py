"""Task folders for --include_path."""
