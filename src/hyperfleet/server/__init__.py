"""The composition root: here, and nowhere else, the parts are put together and run."""
