"""Providers: everything Parley knows of one provider's HTTP is in one file here. `contract.py` is what a file must offer."""
