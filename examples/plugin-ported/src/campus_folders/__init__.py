"""Shared folders of a campus file server: ``version_1`` as it was, ``backend`` after the port."""
