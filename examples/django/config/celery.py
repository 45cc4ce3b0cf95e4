"""Celery's app, set up the usual Django way."""

import os

from celery import Celery
from django.conf import settings

from scannerjob.worker import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("config")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# The guard keeps its records where the broker is, as the ScannerJob says.
install(app, settings.CELERY_BROKER_URL)
