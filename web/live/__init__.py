"""Live status over Socket.IO: the engine below python-socketio, the fan-out, the namespace."""
