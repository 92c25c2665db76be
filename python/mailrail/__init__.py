"""mailrail: a self-hosted email platform on Amazon SES. ARCHITECTURE.md at the root of the repository is the map."""

__version__ = "0.1.0"
