"""What a user reads who brings something bad: for every kind of it the exact words, and never a traceback.

A case is an act and the text that it ends with: an error's, or what stands in the column `problem` of the scan. Each
file has the cases of one stage. This is a package so that its `conftest.py` does not hide that of the folder above.
"""
