"""Runs of a pipeline on this machine."""
