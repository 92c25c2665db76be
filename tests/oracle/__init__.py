"""What the core must produce, computed a second time: slowly, in Python, and without a line of the core's code."""
