"""The door to the engines: which instance a request is for, its way there and back, and what is told of it."""
