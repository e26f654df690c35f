"""Readers of /proc, /sys and cgroups below a root: `read_x` does I/O, `parse_x` is pure."""
