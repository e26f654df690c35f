"""Who spends: one file a meter, all of the contract in `contract.py`."""
