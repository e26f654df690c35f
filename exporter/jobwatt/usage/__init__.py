"""Who was busy: CPU time of processes and cgroups, memory."""
