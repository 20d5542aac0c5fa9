"""What the programs of this package say: one JSON object a line on standard output, easy for a supervisor to follow."""

import json
import sys
import time


def report(event: str, **fields: object) -> None:
    """Write one event: `event`, `time` (unix s) and the fields."""
    sys.stdout.write(json.dumps({"event": event, "time": round(time.time(), 3), **fields}) + "\n")
    sys.stdout.flush()
