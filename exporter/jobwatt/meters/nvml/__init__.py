"""Energy of NVIDIA GPUs, and who used them, through the driver's management library (NVML)."""
