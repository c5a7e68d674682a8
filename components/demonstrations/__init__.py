"""The demonstrations in git and DVC: versions, their files, and what is new."""
