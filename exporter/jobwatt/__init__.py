"""JobWatt: energy, carbon and cost of every training job."""

__version__ = "0.1.0"
