"""Work that nobody waits for: files of requests that are answered line by line, and lists of prompts."""
