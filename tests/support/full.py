"""Whether this is the whole run. `make test` leaves out what takes a newcomer's minutes; MAILRAIL_TEST_FULL=1 runs it, as CI does."""

import os

FULL = bool(os.environ.get("MAILRAIL_TEST_FULL"))
LEFT_OUT = "takes long; MAILRAIL_TEST_FULL=1 runs it"
