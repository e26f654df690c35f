"""Who owns it: one file a resolver, all of the contract in `contract.py`."""
