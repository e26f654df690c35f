"""A made-up node that goes through the same path as a real one: its own meter, its own usage.

`blueprint.py` says what a node is made of and `scenarios.py` which there are, `load.py` how busy
work is over time and `runs.py` when jobs run. `node.py` lets it live, with its `parts.py`,
`tasks.py` and `gpus.py`, and knows the truth; `meter.py`, `gpu_driver.py` and `usage.py` show it as
hardware, driver, /proc and schedulers would, by a `clock.py` that may begin in the past.

A whole site goes a shorter way: `fleet.py` is a plan, `fleet_plan.py` makes one of any size, and
what a node shows at a moment is worked out of it (`fleet_page.py`, with `fleet_samples.py` and
`fleet_accounts.py`), as is what jobs have really used (`fleet_truth.py`); `fleet_web.py` serves
both.
"""
