"""Commands to run from the root of the project."""
