"""The guard for Celery workers. It needs celery, and redis or SQLAlchemy; nothing else of ours."""
