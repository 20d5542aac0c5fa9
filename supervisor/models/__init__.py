"""Models: what is in a file, what lies in the folders, what a server says that it serves."""
