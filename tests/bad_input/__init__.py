"""What a user reads who brings something bad; a package, so that its `conftest.py` does not hide that of tests/."""
