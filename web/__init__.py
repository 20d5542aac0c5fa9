"""HTTP, Socket.IO, server-sent events and pages: parse, call the supervisor, render. No decision is made here."""
