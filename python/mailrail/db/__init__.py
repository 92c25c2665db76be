"""How processes reach PostgreSQL: pools and tenant transactions (`pool.py`), roles and numbered SQL files (`migrate.py`)."""
