"""Who is served next, by which instance, and who has to wait."""
