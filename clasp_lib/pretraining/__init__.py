"""The recipes that made the shipped pocket encoders: `python -m clasp_lib.pretraining --help`."""
