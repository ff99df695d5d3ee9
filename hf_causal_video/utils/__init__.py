"""Small tools that every folder may use: errors, files, types, geometry, lazy names, the version."""
