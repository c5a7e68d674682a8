"""Stage `prepare`: a copy of the demonstrations that training reads quickly."""
