"""What attacks the library: broken input, faults, mutants. A package, so that its conftest is not the one above.

Import from it as `from hard.conftest import within`, and from the one above as `from conftest import RATE`.
"""
