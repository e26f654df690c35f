"""Energy that the kernel's hardware monitoring tells: AMD and Intel GPUs, NVIDIA Grace."""
