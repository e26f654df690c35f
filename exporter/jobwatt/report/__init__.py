"""Receipts of jobs out of Prometheus: what `jobwatt report` asks, adds up and shows."""
