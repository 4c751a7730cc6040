"""Where runs are done: worker processes on this machine, or a Ray cluster."""
