"""What operators need beside the product: health and metrics, watches, backup and restore, the guard against old backups."""
