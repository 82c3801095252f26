"""Ranked lists of any origin: read, checked, scored and written for the servers of hidden splits."""
