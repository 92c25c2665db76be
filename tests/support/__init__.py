"""What tests stand on: a real PostgreSQL, real processes, real sockets on loopback."""
