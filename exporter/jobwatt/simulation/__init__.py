"""A made-up node that goes through the same path as a real one: its own meter, its own usage.

`scenarios.py` says what the node is and what runs on it, `load.py` how busy that is over time;
`node.py` lets it live and knows the truth; `meter.py` and `usage.py` show it as hardware and /proc
would.
"""
