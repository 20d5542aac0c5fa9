"""What is seen of the requests that went through the door: figures, traces, copies of bodies, energy."""
