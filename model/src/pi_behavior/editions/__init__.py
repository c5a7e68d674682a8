"""Editions of the challenge: one data file each."""
