"""A step a file, named by its number."""
