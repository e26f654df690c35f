"""The electricity of sites: its carbon intensity out of a table and from providers, PUE, price."""
